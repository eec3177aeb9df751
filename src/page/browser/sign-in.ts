import { Failure } from "../../client/mod.ts";
import { describeRefusal } from "./describe.ts";
import { element, setText } from "./dom.ts";
import { text } from "./language.ts";
import { demoToken, type Session, startSession } from "./session.ts";

/** A form to sign in with, or where the host's own app does that, a link there. */
export interface SignIn {
  readonly root: HTMLElement;
  focus(): void;
}

export function createSignIn(options: {
  /** Why it is shown. */
  problem: string;
  onSession(session: Session): void;
}): SignIn {
  const { mode, login } = document.documentElement.dataset;
  const problem = element("p", { class: "problem", role: "alert" }, options.problem);
  if (mode === "login") {
    const link = element("a", { class: "button", href: login ?? "/" }, text("signIn"));
    return {
      root: element("div", { class: "card sign-in" }, problem, link),
      focus: () => link.focus(),
    };
  }

  const isDemo = mode === "demo";
  const field = isDemo
    ? element("input", { id: "credential", maxlength: 255 })
    : element("textarea", { id: "credential", rows: 5 });
  field.autocomplete = "off";
  field.spellcheck = false;
  const submit = element("button", { type: "submit" }, text("signIn"));
  const root = element(
    "form",
    { class: "card sign-in", autocomplete: "off", method: "post" },
    element("label", { for: "credential" }, text(isDemo ? "name" : "token")),
    field,
    element("p", { class: "hint" }, text(isDemo ? "anyName" : "tokenHint")),
    problem,
    submit,
  );

  async function signIn(credential: string): Promise<void> {
    const session = await startSession(isDemo ? await demoToken(credential) : credential);
    // Accepted, and not there a moment later: the browser didn't keep it.
    if (!session) throw new Error(text("cookiesBlocked"));
    field.value = "";
    options.onSession(session);
  }

  root.onsubmit = async (event) => {
    event.preventDefault();
    const credential = field.value.trim();
    if (credential === "") return field.focus();
    submit.disabled = true;
    setText(problem, "");
    const failed = await signIn(credential).then(
      () => "",
      (error: Error) => (error instanceof Failure ? describeRefusal(error) : error.message),
    );
    submit.disabled = false;
    setText(problem, failed);
  };
  if (isDemo) field.value = nameInAddress();
  return { root, focus: () => field.focus() };
}

/** The name behind the address's `#`, as the demo's links have it. */
function nameInAddress(): string {
  const given = location.hash.slice(1);
  try {
    return decodeURIComponent(given);
  } catch {
    // Not encoded: a name as somebody typed it.
    return given;
  }
}
