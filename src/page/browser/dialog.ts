import { element } from "./dom.ts";
import { text } from "./language.ts";

/** Makes sure that somebody wants what can't be undone. */
export async function confirmDelete(name: string): Promise<boolean> {
  const cancel = element("button", { type: "button", class: "quiet" }, text("cancel"));
  const confirm = element("button", { type: "button", class: "danger" }, text("delete"));
  const answer = await showDialog(text("deleteAsk", { name }), (close) => {
    cancel.onclick = () => close("");
    confirm.onclick = () => close("delete");
    return [
      element("p", {}, text("deleteWarning")),
      element("div", { class: "actions" }, cancel, confirm),
    ];
  });
  return answer === "delete";
}

/** Shows a dialog until it is closed, by whatever is in it or with Escape, and resolves to how. */
export function showDialog(
  title: string,
  fill: (close: (answer: string) => void) => readonly Node[],
): Promise<string> {
  const dialog = element(
    "dialog",
    { "aria-labelledby": "dialog-title" },
    element("h2", { id: "dialog-title" }, title),
  );
  dialog.append(...fill((answer) => dialog.close(answer)));
  document.body.append(dialog);
  dialog.showModal();
  return new Promise((resolve) => {
    dialog.onclose = () => {
      dialog.remove();
      resolve(dialog.returnValue);
    };
  });
}
