/** The table that compares a region with the rest, and its download. */
import type { Comparison } from "./api";
import { byId, make } from "./dom";
import { count, counted, figure, toCsv } from "./text";

const HEADS = ["Gene", "Inside", "Rest", "Reliability", "Score"];

export function clearComparison(): void {
  byId("compare").replaceChildren();
  byId("region-count").textContent = "";
  byId("region").hidden = true;
}

export function showWaiting(cells: number): void {
  byId("region").hidden = false;
  byId("region-count").textContent = `${counted(cells, "cell")}. Comparing with the rest …`;
}

export function showComparison(comparison: Comparison, current: string | null, choose: (gene: string) => void): void {
  byId("region").hidden = false;
  byId("region-count").textContent =
    `${counted(comparison.inside, "cell")} inside, ${count(comparison.outside)} outside; mean ${comparison.layer} expression.`;
  const heads = HEADS.map((head) => make("th", { scope: "col" }, head));
  const rows = comparison.genes.map((gene) => {
    const button = make("button", { type: "button", class: "gene", click: () => choose(gene.name) }, gene.name);
    const cells = [gene.inside, gene.outside, gene.reliability, gene.score].map((value) => make("td", {}, figure(value)));
    const name = make("th", { scope: "row" }, button, gene.measured ? make("span", { class: "tag measured", title: "measured" }, "m") : "");
    const row = make("tr", { "data-gene": gene.name }, name, ...cells);
    row.classList.toggle("more", gene.score > 0);
    return row;
  });
  const caption = make("caption", {}, "Sorted by the absolute score: the difference divided by the spread, weighted by reliability. m: measured, on the panel.");
  byId("compare").replaceChildren(caption, make("thead", {}, make("tr", {}, ...heads)), make("tbody", {}, ...rows));
  markGene(current);
}

/** Mark the row of the gene that is shown. */
export function markGene(gene: string | null): void {
  for (const row of byId("compare").querySelectorAll<HTMLElement>("tbody tr")) {
    if (row.dataset.gene === gene) row.setAttribute("aria-current", "true");
    else row.removeAttribute("aria-current");
  }
}

/** Save the table as a file. No data leave this computer. */
export function download(comparison: Comparison, title: string): void {
  const address = URL.createObjectURL(new Blob([toCsv(comparison)], { type: "text/csv;charset=utf-8" }));
  const link = make("a", { href: address, download: `${title.replace(/\.[^.]+$/, "")}_region.csv` });
  link.click();
  setTimeout(() => URL.revokeObjectURL(address), 10_000);
}
