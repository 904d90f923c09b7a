/** What the colours mean: scales with their limits, and categories that can be switched on and off. */
import type { CategoryColumn, Column, NumberColumn } from "./api";
import { gradient, otherMap } from "./colours";
import { byId, make } from "./dom";
import { count, figure } from "./text";
import type { MapName } from "./view";

export interface LegendContent {
  map: MapName;
  /** The fraction of the map at which it starts. */
  start: number;
  expression: [number, number] | null;
  uncertainty: [number, number] | null;
  /** Of expression and of its uncertainty. */
  unit: string;
  interval: number | null;
  column: Column | null;
  /** Number of cells per category; null while the column is loading. */
  counts: number[] | null;
  /** Its colours, as drawn on the current background. */
  colours: string[];
  off: number[];
  missing: boolean;
}

export interface LegendActions {
  toggle: (code: number) => void;
  switchAll: (on: boolean) => void;
  swapMap: () => void;
}

type Ramp = Pick<LegendContent, "map" | "start">;

const FEW = 12; // labels listed until the user requests all
let whole = ""; // the column whose labels are all listed

function scale(title: string, unit: string, { map, start }: Ramp, limits: readonly [number, number]): HTMLElement {
  const ramp = make("div", { class: "ramp", "aria-hidden": "true" });
  ramp.style.background = gradient(map, start);
  const ends = make("div", { class: "ends" }, make("span", {}, figure(limits[0])), make("span", {}, unit), make("span", {}, figure(limits[1])));
  return make("div", { class: "scale" }, make("h3", {}, title), ramp, ends);
}

function entries(column: CategoryColumn, content: LegendContent, actions: LegendActions): HTMLElement {
  const list = make("ul", { class: "entries" });
  column.categories.forEach((category, code) => {
    const swatch = make("span", { class: "swatch", "aria-hidden": "true" });
    swatch.style.background = content.colours[code];
    const button = make(
      "button",
      { type: "button", "data-code": String(code), "aria-pressed": String(!content.off.includes(code)), click: () => actions.toggle(code) },
      swatch,
      make("span", { class: "entry" }, category),
      make("span", { class: "number" }, content.counts ? count(content.counts[code]) : ""),
    );
    list.append(make("li", {}, button));
  });
  const all = (text: string, on: boolean): HTMLElement =>
    make("button", { type: "button", class: "quiet", click: () => actions.switchAll(on) }, text);
  const head = make("div", { class: "row" }, make("h3", {}, column.name), make("span", {}, all("All", true), all("None", false)));
  const more = column.categories.length > FEW ? expander(column, list) : "";
  return make("div", { class: "scale" }, head, list, more);
}

/** The button that lists all labels, or only the first ones; it states how many there are. */
function expander(column: CategoryColumn, list: HTMLElement): HTMLElement {
  const number = column.categories.length;
  const button = make("button", { type: "button", class: "quiet more-entries" });
  const fold = (): void => {
    const all = whole === column.name;
    [...list.children].forEach((item, at) => item.toggleAttribute("hidden", !all && at >= FEW));
    button.textContent = all ? `Show the first ${FEW}` : `Show all ${count(number)} labels`;
    button.setAttribute("aria-expanded", String(all));
  };
  button.addEventListener("click", () => {
    whole = whole === column.name ? "" : column.name;
    fold();
  });
  fold();
  return button;
}

function numberScale(column: NumberColumn, ramp: Ramp): HTMLElement {
  return scale(column.name, "", ramp, [column.low, column.high]);
}

export function drawLegend(content: LegendContent, actions: LegendActions): void {
  const focused = (document.activeElement as HTMLElement | null)?.dataset.code;
  const parts: HTMLElement[] = [];
  if (content.expression) parts.push(scale("Expression", content.unit, content, content.expression));
  if (content.uncertainty) {
    const width = content.interval ? `Width of the ${Math.round(100 * content.interval)} % interval` : "Uncertainty";
    parts.push(scale(width, content.unit, { ...content, map: otherMap(content.map) }, content.uncertainty));
  }
  if (content.column?.kind === "category") parts.push(entries(content.column, content, actions));
  if (content.column?.kind === "number") parts.push(numberScale(content.column, content));
  if (content.missing) {
    parts.push(make("p", { class: "missing" }, make("span", { class: "swatch none", "aria-hidden": "true" }), "no value"));
  }
  byId("legend-parts").replaceChildren(...parts);
  const swap = byId("map");
  swap.hidden = !content.expression && !content.uncertainty && content.column?.kind !== "number";
  swap.textContent = `Colours: ${content.map}`;
  swap.onclick = actions.swapMap;
  if (focused !== undefined) byId("legend").querySelector<HTMLElement>(`[data-code="${focused}"]`)?.focus();
}
