type Attributes = Readonly<Record<string, string | number | boolean>>;

/** An element with attributes and children. Text is text: there is no way to give markup. */
export function element<Name extends keyof HTMLElementTagNameMap>(
  name: Name,
  attributes: Attributes = {},
  ...children: (Node | string)[]
): HTMLElementTagNameMap[Name] {
  const made = document.createElement(name);
  for (const [attribute, value] of Object.entries(attributes)) {
    if (value !== false) made.setAttribute(attribute, value === true ? "" : String(value));
  }
  made.append(...children);
  return made;
}

/** An element that the server has put on the page. */
export function byId<Type extends HTMLElement = HTMLElement>(id: string): Type {
  const found = document.getElementById(id);
  if (!found) throw new Error(`Element is missing: ${id}`);
  return found as Type;
}

/** Shows a text, and touches the page only where it is another one. */
export function setText(target: HTMLElement, text: string): void {
  if (target.textContent !== text) target.textContent = text;
}

/** The page's title, with what is unread in front. */
export function setTitle(title: string, unread: number): void {
  const text = unread > 0 ? `(${unread}) ${title}` : title;
  if (document.title !== text) document.title = text;
}
