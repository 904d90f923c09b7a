/** The lists and buttons above the pictures. */
import type { Dataset, Scale, Session } from "./api";
import { byId, make } from "./dom";
import { count, UNITS } from "./text";
import type { Layer, View } from "./view";

const KINDS = { imputed: "cells", placed: "placed cells", spots: "spots" };
export const TITLES: Record<Layer, string> = {
  column: "Labels",
  measured: "Measured",
  imputed: "Imputed",
  uncertainty: "Uncertainty",
};

const EXPLAINED: Record<Layer, (unit: string) => string> = {
  column: () => "Cells coloured by the column selected above",
  measured: (unit) => `Measured by the instrument (${unit})`,
  imputed: (unit) => `Predicted by cellweft (${unit})`,
  uncertainty: () => "Width of the interval around the prediction: narrower is better",
};

export interface SelectActions {
  dataset: (id: number) => void;
  column: (name: string | null) => void;
  slice: (name: string | null) => void;
  panel: (layer: Layer) => void;
  tissue: () => void;
}

function option(value: string, text: string): HTMLOptionElement {
  return make("option", { value }, text);
}

/** Fill the list of results; once. */
export function fillDatasets(session: Session, actions: SelectActions): void {
  const select = byId<HTMLSelectElement>("dataset");
  const text = (dataset: Dataset): string => `${dataset.title} · ${count(dataset.cells)} ${KINDS[dataset.kind]}`;
  select.replaceChildren(...session.datasets.map((dataset) => option(String(dataset.id), text(dataset))));
  select.addEventListener("change", () => actions.dataset(Number(select.value)));
  const color = byId<HTMLSelectElement>("color");
  color.addEventListener("change", () => actions.column(color.value || null));
  const slice = byId<HTMLSelectElement>("slice");
  slice.addEventListener("change", () => actions.slice(slice.value || null));
  byId("tissue").addEventListener("click", actions.tissue);
}

/** Fill the lists that depend on the dataset. */
export function fillFor(dataset: Dataset, hasTissue: boolean): void {
  byId<HTMLSelectElement>("dataset").value = String(dataset.id);
  const labels = dataset.columns.filter((column) => column.kind === "category");
  const figures = dataset.columns.filter((column) => column.kind === "number");
  const group = (label: string, columns: Dataset["columns"]): HTMLElement[] =>
    columns.length ? [make("optgroup", { label }, ...columns.map((column) => option(column.name, column.name)))] : [];
  byId("color").replaceChildren(
    option("", dataset.layers.length ? "Gene only" : "–"),
    ...group("Labels", labels),
    ...group("Numbers", figures),
  );
  const slices = dataset.columns.find((column) => column.name === dataset.slices);
  const names = slices?.kind === "category" ? slices.categories : [];
  byId("slice").replaceChildren(option("", "All slices"), ...names.map((name) => option(name, name)));
  byId("slice-label").hidden = names.length < 2;
  byId("tissue").hidden = !hasTissue;
}

/** Update lists and buttons to the view. */
export function showSelects(view: View, possible: Layer[], shown: Layer[], scale: Scale, actions: SelectActions): void {
  byId<HTMLSelectElement>("color").value = shown.includes("column") ? (view.column ?? "") : "";
  byId<HTMLSelectElement>("slice").value = view.slice ?? "";
  byId("tissue").setAttribute("aria-pressed", String(view.tissue));
  const group = byId("layers");
  const focused = (document.activeElement as HTMLElement | null)?.dataset.toggles;
  const buttons = possible.map((layer) => {
    const pressed = String(shown.includes(layer));
    return make(
      "button",
      { type: "button", "aria-pressed": pressed, "data-toggles": layer, title: EXPLAINED[layer](UNITS[scale]), click: () => actions.panel(layer) },
      layer === "column" ? (view.column ?? TITLES.column) : TITLES[layer],
    );
  });
  group.replaceChildren(...buttons);
  if (focused) group.querySelector<HTMLElement>(`[data-toggles="${focused}"]`)?.focus();
}
