/** Light or dark: follows the system unless switched here; stored in this browser. */
import { byId } from "./dom";
import { parseColour, type Colour } from "./colours";

const KEY = "cellweft-theme";
const system = matchMedia("(prefers-color-scheme: dark)");

function remembered(): string | null {
  try {
    return localStorage.getItem(KEY);
  } catch {
    return null; // storage may be forbidden
  }
}

function isDark(): boolean {
  const chosen = document.documentElement.dataset.theme ?? (system.matches ? "dark" : "light");
  return chosen === "dark";
}

/** Colours of the style sheet that are used in pictures. */
export function themeColours(): { ground: Colour; missing: Colour; tissue: Colour } {
  const style = getComputedStyle(document.documentElement);
  const read = (name: string): Colour => parseColour(style.getPropertyValue(name).trim());
  return { ground: read("--ground"), missing: read("--missing"), tissue: read("--tissue") };
}

export function watchTheme(changed: () => void): void {
  const chosen = remembered();
  if (chosen === "dark" || chosen === "light") document.documentElement.dataset.theme = chosen;
  const button = byId("theme");
  const tell = (): void => {
    button.setAttribute("aria-label", isDark() ? "Switch to light mode" : "Switch to dark mode");
    button.title = isDark() ? "Light" : "Dark";
    changed();
  };
  button.addEventListener("click", () => {
    const next = isDark() ? "light" : "dark";
    document.documentElement.dataset.theme = next;
    try {
      localStorage.setItem(KEY, next);
    } catch {
      // it then applies to this visit only
    }
    tell();
  });
  system.addEventListener("change", tell);
  tell();
}
