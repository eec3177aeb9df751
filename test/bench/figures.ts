/** One row of the table: a figure beside its control. */
export interface Figure {
  readonly figure: string;
  readonly measured: number;
  readonly control: number;
  readonly unit: string;
  /** `measured` against `control`: a ratio, or a difference in `unit`. */
  readonly result: number;
  /** Left out: no target. */
  readonly target?: { readonly least: number } | { readonly most: number } | undefined;
}

type Target = Figure["target"];

/** What was measured in each of several rounds, by what it was measured of. */
export interface Rounds<Name extends string> {
  /** The median of all rounds. */
  of(name: Name): number;
  /** The median of the ratios round by round, which what else the machine does disturbs least. */
  ratio(measured: Name, control: Name): number;
  /** A row that compares two of them. */
  figure(
    figure: string,
    options: { measured: Name; control: Name; unit: string; target?: Target },
  ): Figure;
}

/** Measures all in turn, round by round, after a round that doesn't count. */
export async function inTurn<Name extends string>(
  count: number,
  measurements: Readonly<Record<Name, () => Promise<number>>>,
): Promise<Rounds<Name>> {
  const names = Object.keys(measurements) as Name[];
  const rounds: Record<Name, number>[] = [];
  for (let round = 0; round <= count; round++) {
    const values = {} as Record<Name, number>;
    for (const name of names) values[name] = await measurements[name]();
    if (round > 0) rounds.push(values);
  }
  const of = (name: Name) =>
    quantile(
      rounds.map((values) => values[name]),
      0.5,
    );
  const ratio = (measured: Name, control: Name) =>
    quantile(
      rounds.map((values) => values[measured] / values[control]),
      0.5,
    );
  return {
    of,
    ratio,
    figure: (figure, { measured, control, unit, target }) => ({
      figure,
      measured: of(measured),
      control: of(control),
      unit,
      result: ratio(measured, control),
      target,
    }),
  };
}

/** The value below which a part of all values is. */
export function quantile(values: readonly number[], part: number): number {
  return values.toSorted((a, b) => a - b)[Math.floor(values.length * part)] ?? Number.NaN;
}

/** Prints the table. */
export function print(figures: readonly Figure[]): void {
  console.table(
    figures.map(({ figure, measured, control, unit, result, target }) => ({
      figure,
      measured: `${show(measured)} ${unit}`.trim(),
      control: `${show(control)} ${unit}`.trim(),
      result: result.toFixed(2),
      target: describe(target),
      met: target === undefined ? "" : isMet(result, target) ? "yes" : "NO",
    })),
  );
}

function describe(target: Target): string {
  if (target === undefined) return "";
  return "least" in target ? `at least ${target.least}` : `at most ${target.most}`;
}

function isMet(result: number, target: NonNullable<Target>): boolean {
  return "least" in target ? result >= target.least : result <= target.most;
}

function show(value: number): string {
  return value >= 100 ? Math.round(value).toLocaleString("en") : value.toFixed(2);
}
