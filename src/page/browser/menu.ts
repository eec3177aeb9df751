import { element, setText } from "./dom.ts";

/** One thing that a menu offers. */
export interface MenuItem {
  label(): string;
  readonly isDangerous?: boolean;
  /** Whether it is on, of what can be on or off. */
  isOn?(): boolean;
  run(): void;
}

/** A button that shows what else can be done. */
export function createMenu(
  label: string,
  items: readonly MenuItem[],
): { readonly root: HTMLElement; update(): void } {
  const toggle = element(
    "button",
    { type: "button", class: "quiet small dots", "aria-label": label, "aria-expanded": "false" },
    "⋯",
  );
  const buttons = items.map(({ isDangerous = false, run }) => {
    const kind = isDangerous ? "quiet danger" : "quiet";
    const button = element("button", { type: "button", class: `${kind} small` });
    button.onclick = () => {
      close();
      toggle.focus();
      run();
    };
    return button;
  });
  const list = element("div", { class: "menu", hidden: true }, ...buttons);
  const root = element("div", { class: "menu-place" }, toggle, list);

  function close(): void {
    list.hidden = true;
    toggle.ariaExpanded = "false";
  }

  function update(): void {
    for (const [at, { label, isOn }] of items.entries()) {
      const button = buttons[at] as HTMLButtonElement;
      setText(button, label());
      if (isOn) button.ariaPressed = String(isOn());
    }
  }

  toggle.onclick = () => {
    update();
    list.hidden = !list.hidden;
    toggle.ariaExpanded = String(!list.hidden);
    if (!list.hidden) buttons[0]?.focus();
  };
  // Safari gives a clicked button no focus: what has it keeps it, or the menu would close before the click.
  root.onmousedown = (event) => event.preventDefault();
  root.onkeydown = (event) => {
    if (event.key !== "Escape" || list.hidden) return;
    event.preventDefault();
    close();
    toggle.focus();
  };
  root.addEventListener("focusout", ({ relatedTarget }) => {
    if (!root.contains(relatedTarget as Node | null)) close();
  });
  update();
  return { root, update };
}
