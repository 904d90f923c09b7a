/** The card with the values of a cell. It follows the pointer; after a click, it stays until it is closed. */
import { byId, make } from "./dom";
import { figure } from "./text";

export type Row = [string, string | number | boolean | null];

function shown(value: Row[1]): string {
  return typeof value === "number" ? figure(value) : value === null ? "–" : String(value);
}

export function showCard(title: string, rows: Row[], at: { x: number; y: number }, pinned: boolean): void {
  const card = byId("card");
  const list = make("dl", {}, ...rows.flatMap(([name, value]) => [make("dt", {}, name), make("dd", {}, shown(value))]));
  card.replaceChildren(make("h3", {}, title), list);
  card.classList.toggle("pinned", pinned);
  card.hidden = false;
  const [width, height] = [card.offsetWidth, card.offsetHeight];
  const left = at.x + 16 + width > innerWidth ? at.x - width - 16 : at.x + 16;
  card.style.left = `${Math.max(4, left)}px`;
  card.style.top = `${Math.max(4, Math.min(innerHeight - height - 4, at.y + 12))}px`;
}

export function hideCard(): void {
  byId("card").hidden = true;
}
