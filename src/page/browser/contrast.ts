/** Black or white, whichever is easier to read on a colour (WCAG 2.2, relative luminance). `at` is on the page. */
export function textOn(color: string, at: HTMLElement): string {
  const { style } = at;
  const before = style.color;
  style.color = color;
  const channels = getComputedStyle(at).color.match(/[\d.]+/g) ?? [];
  style.color = before;
  const [red = 0, green = 0, blue = 0] = channels.map((channel) => (Number(channel) / 255) ** 2.2);
  return 0.2126 * red + 0.7152 * green + 0.0722 * blue > 0.18 ? "#000" : "#fff";
}
