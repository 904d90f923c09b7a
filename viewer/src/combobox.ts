/** The search for a gene: the combobox pattern of the ARIA Authoring Practices, list below, no inline completion. */
import type { Genes } from "./api";
import { byId, make, say } from "./dom";
import { GeneSearch } from "./search";
import { counted, figure, origin } from "./text";

const MOST = 60;
const HINT = "“measured”: on the panel. Bar and number: reliability, the expected correlation of the imputed gene.";

function matches(number: number): string {
  if (number === MOST) return `${MOST} or more genes match`;
  return `${counted(number, "gene")} ${number === 1 ? "matches" : "match"}`;
}

export class Combobox {
  private readonly input = byId<HTMLInputElement>("search");
  private readonly list = byId<HTMLUListElement>("options");
  private genes: Genes = { names: [], measured: [], in_tissue: [], reliability: [] };
  private searcher = new GeneSearch([]);
  private offered: number[] = [];
  private active = -1;
  private current = "";

  constructor(private readonly choose: (gene: string) => void) {
    this.input.addEventListener("input", () => this.open(this.input.value));
    this.input.addEventListener("focus", () => this.input.select());
    this.input.addEventListener("mousedown", (event) => {
      // A press on selected text would drop the selection when it ends, after the click.
      if (document.activeElement === this.input && this.list.hidden) event.preventDefault();
    });
    this.input.addEventListener("click", () => {
      if (!this.list.hidden) return; // the user is typing: the caret moves to the click
      this.open("");
      this.input.select(); // the next input replaces the name
    });
    this.input.addEventListener("blur", () => this.close());
    this.input.addEventListener("keydown", (event) => this.key(event));
    this.list.addEventListener("pointerdown", (event) => event.preventDefault()); // the input keeps the focus
    this.list.addEventListener("click", (event) => {
      const option = (event.target as Element).closest<HTMLElement>("[role=option]");
      if (option) this.take(this.genes.names[Number(option.dataset.gene)]);
    });
  }

  offer(genes: Genes): void {
    this.genes = genes;
    this.searcher = new GeneSearch(genes.names);
    this.input.disabled = genes.names.length === 0;
    this.input.placeholder = genes.names.length ? `Search ${genes.names.length.toLocaleString("en-GB")} genes` : "This result has no genes";
  }

  show(gene: string | null): void {
    this.current = gene ?? "";
    if (document.activeElement !== this.input || this.list.hidden) this.input.value = this.current;
  }

  focus(): void {
    this.input.focus();
  }

  private key(event: KeyboardEvent): void {
    const steps: Record<string, number> = { ArrowDown: 1, ArrowUp: -1, PageDown: 8, PageUp: -8 };
    if (event.key in steps) {
      if (this.list.hidden) this.open(this.input.value === this.current ? "" : this.input.value);
      else this.activate(this.active + steps[event.key]);
    } else if (event.key === "Enter") {
      const typed = this.input.value.trim();
      const chosen = this.list.hidden ? -1 : this.active;
      if (chosen >= 0) this.take(this.genes.names[this.offered[chosen]]);
      else if (typed) this.take(this.searcher.exact(typed) >= 0 ? this.genes.names[this.searcher.exact(typed)] : typed);
    } else if (event.key === "Escape") {
      this.input.value = this.current;
      if (this.list.hidden) this.input.blur();
      this.close();
    } else return;
    event.preventDefault();
    event.stopPropagation();
  }

  private take(gene: string): void {
    this.close();
    this.input.value = gene;
    this.input.select(); // the next input replaces it
    this.choose(gene);
  }

  private open(query: string): void {
    this.offered = this.searcher.find(query, MOST);
    this.list.replaceChildren(...this.offered.map((gene, at) => this.option(gene, at)));
    if (!this.offered.length) this.list.append(make("li", { class: "none" }, `No gene name contains “${query.trim()}”`));
    else this.list.append(make("li", { class: "hint", "aria-hidden": "true" }, HINT));
    this.list.hidden = false;
    this.input.setAttribute("aria-expanded", "true");
    this.activate(query.trim() && this.offered.length ? 0 : -1);
    if (query.trim()) say(matches(this.offered.length));
  }

  private option(gene: number, at: number): HTMLElement {
    const reliability = this.genes.reliability[gene];
    const measured = this.genes.measured[gene];
    const trust = make("span", { class: "trust" }, reliability === null ? "" : figure(reliability));
    const meter = make("span", { class: "meter", "aria-hidden": "true" }, make("i"));
    (meter.firstChild as HTMLElement).style.width = `${100 * Math.max(0, Math.min(1, reliability ?? 0))}%`;
    const said = `${this.genes.names[gene]}, ${origin(this.genes, gene)}`
      + (reliability === null ? "" : `, reliability ${figure(reliability)}`);
    return make(
      "li",
      { id: `option-${at}`, role: "option", "aria-selected": "false", "aria-label": said, "data-gene": String(gene) },
      make("span", { class: "gene" }, this.genes.names[gene]),
      make("span", { class: measured ? "tag measured" : "tag" }, measured ? "measured" : ""),
      reliability === null ? "" : meter,
      trust,
    );
  }

  private activate(at: number): void {
    this.list.querySelector("[aria-selected=true]")?.setAttribute("aria-selected", "false");
    this.active = Math.max(-1, Math.min(this.offered.length - 1, at));
    const option = this.active < 0 ? null : (this.list.children[this.active] as HTMLElement);
    option?.setAttribute("aria-selected", "true");
    option?.scrollIntoView({ block: "nearest" });
    if (option) this.input.setAttribute("aria-activedescendant", option.id);
    else this.input.removeAttribute("aria-activedescendant");
  }

  private close(): void {
    this.list.hidden = true;
    this.active = -1;
    this.input.setAttribute("aria-expanded", "false");
    this.input.removeAttribute("aria-activedescendant");
    if (this.input.value !== this.current && document.activeElement !== this.input) this.input.value = this.current;
  }
}
