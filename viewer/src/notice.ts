/** Errors in plain words: where, what was expected, what was found, and the next step. */
import { ServerError } from "./api";
import { byId, make } from "./dom";

export function showError(error: unknown): void {
  if (error instanceof DOMException && error.name === "AbortError") return;
  const box = byId("notice");
  const close = make("button", { type: "button", class: "quiet", "aria-label": "Close this message", click: hideError }, "Close");
  if (error instanceof ServerError) {
    box.replaceChildren(
      make("h2", {}, error.where),
      make("p", {}, `Expected ${error.expected}; got ${error.got}.`),
      make("p", { class: "fix" }, error.fix),
      close,
    );
  } else {
    box.replaceChildren(make("h2", {}, "Something went wrong"), make("p", {}, String(error)), close);
  }
  box.hidden = false;
}

export function hideError(): void {
  byId("notice").hidden = true;
}
