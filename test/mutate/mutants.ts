import {
  isArrayLiteralExpression,
  isBinaryExpression,
  isBlock,
  isBreakStatement,
  isCallExpression,
  isConditionalExpression,
  isContinueStatement,
  isExportDeclaration,
  isExpressionStatement,
  isFunctionLikeDeclaration,
  isIfStatement,
  isImportDeclaration,
  isNewExpression,
  isNumericLiteral,
  isObjectLiteralExpression,
  isPostfixUnaryExpression,
  isPrefixUnaryExpression,
  isPropertyAccessExpression,
  isPropertyAssignment,
  isRegularExpressionLiteral,
  isStringLiteralLikeNode,
  isTemplateExpression,
  isThrowStatement,
  isTypeNode,
  isWhileStatement,
  type Node,
  type SourceFile,
  SyntaxKind,
} from "typescript/unstable/ast";

/** One change to a source file. */
export interface Mutant {
  /** Path from the project's folder. */
  readonly file: string;
  readonly line: number;
  readonly start: number;
  readonly end: number;
  readonly original: string;
  readonly replacement: string;
}

const OPERATORS: Readonly<Record<string, string>> = {
  "<": "<=",
  "<=": "<",
  ">": ">=",
  ">=": ">",
  "===": "!==",
  "!==": "===",
  "&&": "||",
  "||": "&&",
  "+": "-",
  "-": "+",
  "*": "/",
  "/": "*",
  "%": "*",
  "^": "|",
  "|=": "=",
  "+=": "-=",
  "-=": "+=",
  "??=": "=",
  "||=": "=",
};
const METHODS: Readonly<Record<string, string>> = {
  min: "max",
  max: "min",
  some: "every",
  every: "some",
  floor: "ceil",
  ceil: "floor",
  startsWith: "endsWith",
  endsWith: "startsWith",
  add: "delete",
};
/** Calls that hand back what they were called on, or nearly. */
const TRANSPARENT = ["filter", "sort", "toSorted", "reverse", "slice", "trim", "toLowerCase"];
/** A number from here on is doubled and halved. */
const LARGE = 100;
/** What a line of Lua or SQL may be changed to. */
const IN_TEXT: readonly (readonly [RegExp, string])[] = [
  [/ >= /g, " > "],
  [/ <= /g, " < "],
  [/ > /g, " >= "],
  [/ < /g, " <= "],
  [/ == /g, " ~= "],
  [/ ~= /g, " == "],
  [/ and /g, " or "],
  [/ or /g, " and "],
  [/ AND /g, " OR "],
  [/ DESC\b/g, " ASC"],
  [/ - 1\b/g, ""],
  [/ \+ 1\b/g, ""],
];
/** A sentence for people, of four words or more: no test should care for its wording. */
const SENTENCE = /^.[A-Z][a-z']*,?(?: \S+){3}/;
/** A whole statement of Lua on a line of its own. */
const LUA_STATEMENT =
  /^[ \t]*(?:(?:redis\.)?call\(.*\)|[a-z]\w*\([^)]*\)|[a-z]\w*(?:\[[^\]]+\])? = .*[\w)}']|if .* end)$/gm;

/** Every mutant of a file, in the order in which they stand in it. */
export function mutantsOf(file: string, source: SourceFile): Mutant[] {
  const { text } = source;
  const found: Mutant[] = [];
  visit(source);
  const unique = new Map(found.map((one) => [`${one.start}:${one.end}:${one.replacement}`, one]));
  return [...unique.values()].sort((a, b) => a.start - b.start || a.end - b.end);

  function change(start: number, end: number, replacement: string): void {
    const original = text.slice(start, end);
    const line = text.slice(0, start).split("\n").length;
    if (original !== replacement) found.push({ file, line, start, end, original, replacement });
  }

  function replace(node: Node, replacement: string): void {
    change(node.getStart(source), node.end, replacement);
  }

  function visit(node: Node): void {
    if (isTypeNode(node) || isImportDeclaration(node) || isExportDeclaration(node)) return;
    mutate(node);
    node.forEachChild((child) => visit(child));
  }

  function mutate(node: Node): void {
    if (isBinaryExpression(node)) binary(node.left, node.operatorToken, node.right);
    if (isPrefixUnaryExpression(node)) {
      if (node.operator === SyntaxKind.ExclamationToken)
        replace(node, node.operand.getText(source));
    }
    if (isPostfixUnaryExpression(node)) {
      const isUp = node.operator === SyntaxKind.PlusPlusToken;
      change(node.operand.end, node.end, isUp ? "--" : "++");
    }
    if (isIfStatement(node)) either(node.expression);
    if (isConditionalExpression(node)) either(node.condition);
    if (isWhileStatement(node)) replace(node.expression, "false");
    if (node.kind === SyntaxKind.TrueKeyword) replace(node, "false");
    if (node.kind === SyntaxKind.FalseKeyword) replace(node, "true");
    if (isNumericLiteral(node)) number(node);
    if (isStringLiteralLikeNode(node) && !isNameOrMessage(node)) replace(node, '""');
    if (isStringLiteralLikeNode(node) || isTemplateExpression(node)) embedded(node);
    if (isTemplateExpression(node) && !isNameOrMessage(node)) replace(node, "``");
    if (isRegularExpressionLiteral(node)) pattern(node);
    if (isArrayLiteralExpression(node) && node.elements.length > 0) replace(node, "[]");
    if (isObjectLiteralExpression(node)) members(node.properties);
    if (isExpressionStatement(node) || isThrowStatement(node)) replace(node, ";");
    if (isContinueStatement(node) || isBreakStatement(node)) replace(node, ";");
    if (isFunctionLikeDeclaration(node) && node.body && isBlock(node.body))
      replace(node.body, "{}");
    if (isCallExpression(node) && isPropertyAccessExpression(node.expression)) {
      const { name, expression } = node.expression;
      const other = METHODS[name.text];
      if (other) replace(name, other);
      if (TRANSPARENT.includes(name.text)) change(expression.end, node.end, "");
    }
  }

  function binary(left: Node, operator: Node, right: Node): void {
    const sign = operator.getText(source);
    const other = OPERATORS[sign];
    if (other) replace(operator, other);
    if (sign === "??") change(left.end, right.end, "");
    if (sign === "&&" || sign === "||") {
      change(left.getStart(source), right.getStart(source), "");
      change(left.end, right.end, "");
    }
  }

  function either(condition: Node): void {
    replace(condition, "true");
    replace(condition, "false");
  }

  function number(node: Node): void {
    const value = Number(node.getText(source).replaceAll("_", ""));
    const isLarge = value >= LARGE;
    replace(node, String(isLarge ? value * 2 : value + 1));
    if (value > 0) replace(node, String(isLarge ? value / 2 : value - 1));
  }

  function pattern(node: Node): void {
    const expression = node.getText(source);
    if (expression.startsWith("/^")) replace(node, `/${expression.slice(2)}`);
    if (/\$\/\w*$/.test(expression)) replace(node, expression.replace(/\$(\/\w*)$/, "$1"));
  }

  /** Leaves out one member at a time; the type check sees to those that must be there. */
  function members(all: readonly Node[]): void {
    for (const [at, one] of all.entries()) {
      const next = all[at + 1];
      change(one.getStart(source), next ? next.getStart(source) : one.end, "");
    }
  }

  /** Lua and SQL. */
  function embedded(node: Node): void {
    const start = node.getStart(source);
    const inside = text.slice(start, node.end);
    if (!/\n|SELECT|UPDATE|DELETE|INSERT/.test(inside)) return;
    for (const [from, to] of IN_TEXT) {
      for (const { index, 0: match } of inside.matchAll(from)) {
        if (isInHole(node, start + index)) continue;
        change(start + index, start + index + match.length, to);
      }
    }
    for (const { index, 0: match } of inside.matchAll(LUA_STATEMENT)) {
      change(start + index, start + index + match.length, "");
    }
  }

  function isInHole(node: Node, at: number): boolean {
    if (!isTemplateExpression(node)) return false;
    return node.templateSpans.some(
      ({ expression }) => expression.getFullStart() <= at && at < expression.end,
    );
  }

  /** The quoted name of a member, or what people are to read. */
  function isNameOrMessage(node: Node): boolean {
    const { parent, pos } = node;
    if (SENTENCE.test(node.getText(source))) return true;
    if (isNewExpression(parent)) return /Error$/.test(parent.expression.getText(source));
    return isPropertyAssignment(parent) && parent.pos === pos;
  }
}
