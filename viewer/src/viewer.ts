/** Connects the parts: requests change the view, and the view is drawn. */
import * as api from "./api";
import type { Camera } from "./camera";
import { Combobox } from "./combobox";
import { clearComparison, download, markGene, showComparison, showWaiting } from "./comparison";
import { byId, say } from "./dom";
import { Inspector } from "./inspector";
import { Lasso } from "./lasso";
import { hideError, showError } from "./notice";
import { Panels } from "./panels";
import { cellsWithin, packBits } from "./region";
import { Scene } from "./scene";
import { fillDatasets, fillFor, showSelects, type SelectActions } from "./selects";
import type { ViewerState } from "./state";
import { likelyGene, Store } from "./store";
import { count, counted, figure, origin } from "./text";
import { FIRST_VIEW, fromHash, toHash, type Layer, type View } from "./view";

const SETTLE = 200; // milliseconds after which the URL follows the camera

/** Whether two views of a dataset show the same cells. */
function sameCells(one: View, other: View): boolean {
  return one.slice === other.slice && one.off.join() === other.off.join();
}

export class Viewer implements ViewerState {
  view: View = FIRST_VIEW;
  readonly scene = new Scene();
  readonly lasso = new Lasso(() => this.follow(), (polygon) => void this.select(polygon));
  readonly search = new Combobox((gene) => void this.showGene(gene));
  readonly inspector = new Inspector(this);
  readonly panels = new Panels(this, this.inspector);
  session: api.Session = { cellweft: "", datasets: [] };
  store!: Store;
  behind: Store | null = null;
  hidden: Uint8Array = new Uint8Array(0);
  elsewhere: Uint8Array | null = null;
  within: Uint8Array | null = null;
  selected = 0;
  comparison: api.Comparison | null = null;
  private readonly stores = new Map<number, Store>();
  private saving: ReturnType<typeof setTimeout> | undefined;
  private visit = 0;
  private busy = 1; // until the first view is open

  readonly actions: SelectActions = {
    dataset: (id) => void this.open({ ...FIRST_VIEW, dataset: id, gene: this.view.gene, column: this.view.column, map: this.view.map }),
    column: (name) => void this.showColumn(name),
    slice: (name) => void this.open({ ...this.view, slice: name, camera: null, region: null }),
    panel: (layer) => void this.togglePanel(layer),
    tissue: () => void this.open({ ...this.view, tissue: !this.view.tissue }),
  };

  async start(): Promise<void> {
    try {
      await this.begin();
    } finally {
      this.busy--;
    }
  }

  private async begin(): Promise<void> {
    this.session = await api.getSession();
    if (!this.session.datasets.length) throw new api.ServerError("cellweft view", "a result", "none", "Pass a file: cellweft view imputed.zarr");
    for (const dataset of this.session.datasets) this.stores.set(dataset.id, new Store(dataset));
    fillDatasets(this.session, this.actions);
    this.scene.onFrame = () => this.follow();
    addEventListener("hashchange", () => {
      if (location.hash !== toHash(this.view)) void this.open(fromHash(location.hash), { keepAddress: true });
    });
    await this.open(fromHash(location.hash), { keepAddress: true });
  }

  get dataset(): api.Dataset {
    return this.store.dataset;
  }

  get column(): api.Column | null {
    return this.dataset.columns.find((column) => column.name === this.view.column) ?? null;
  }

  /** Panels that the dataset can fill, in their order. */
  get possible(): Layer[] {
    return [...(this.dataset.columns.length ? (["column"] as const) : []), ...this.dataset.layers];
  }

  get shown(): Layer[] {
    const possible = this.possible.filter((layer) => layer !== "column" || this.view.column !== null);
    const asked = possible.filter((layer) => this.view.panels?.includes(layer));
    if (asked.length) return asked;
    return this.dataset.layers.length > 1 ? this.dataset.layers : possible;
  }

  /** Show a view: fetch what it needs, and draw it. Every change, except of the camera alone, comes here. */
  async open(view: View, options: { keepAddress?: boolean } = {}): Promise<void> {
    const visit = ++this.visit;
    this.busy++;
    hideError();
    try {
      const id = this.stores.has(view.dataset) ? view.dataset : this.session.datasets[0].id;
      const store = this.stores.get(id) as Store;
      await store.load();
      const behind = await this.tissueOf(store, view);
      if (visit !== this.visit) return;
      const fresh = store !== this.store;
      const before = this.view;
      this.store = store;
      this.behind = behind;
      this.view = { ...this.completed(view, options.keepAddress === true), dataset: id };
      if (fresh) this.change();
      await this.filter();
      if (visit !== this.visit) return;
      await this.panels.arrange(fresh);
      showSelects(this.view, this.possible, this.shown, this.dataset.scale, this.actions);
      this.search.show(this.view.gene);
      this.about();
      if (fresh || !sameCells(before, this.view)) say(this.summary());
      this.write(!options.keepAddress);
      await this.compareRegion(visit);
    } catch (error) {
      if (visit === this.visit) showError(error);
    } finally {
      this.busy--;
    }
  }

  /** A gene of the current dataset. The server is also asked for unknown genes, since it suggests similar names. */
  async showGene(gene: string): Promise<void> {
    const first = this.dataset.layers[0];
    if (!this.store.genes.names.includes(gene) && first) {
      try {
        await this.store.gene(gene, first);
      } catch (error) {
        showError(error);
      }
      return;
    }
    const shown = this.shown.some((layer) => layer !== "column") ? this.view.panels : [...this.shown, "imputed" as const];
    await this.open({ ...this.view, gene, panels: shown });
    say(`${gene}: ${this.geneFacts(gene)}`);
  }

  /** Summary of the view: shown and total cells, genes, slice. */
  private summary(): string {
    const { dataset, view } = this;
    const seen = dataset.cells - this.hidden.reduce((sum, one) => sum + one, 0);
    const cells = seen === dataset.cells ? counted(seen, "cell") : `${count(seen)} of ${counted(dataset.cells, "cell")}`;
    const slice = view.slice === null ? "" : `slice ${view.slice}`;
    return [cells, dataset.genes ? counted(dataset.genes, "gene") : "", slice, "? for help"].filter(Boolean).join(" · ");
  }

  /** Whether nothing is loading and every panel is complete. */
  get settled(): boolean {
    return this.busy === 0 && this.scene.settled;
  }

  stepGene(step: number): void {
    const { names } = this.store.genes;
    if (!names.length) return;
    const at = names.indexOf(this.view.gene ?? "");
    void this.showGene(names[(at + step + names.length) % names.length]);
  }

  async showColumn(name: string | null): Promise<void> {
    const others = this.shown.filter((layer) => layer !== "column");
    const panels: Layer[] = name === null ? others : ["column", ...others];
    await this.open({ ...this.view, column: name ?? this.view.column, panels: panels.length ? panels : null, off: [] });
    say(name === null ? "Coloured by gene only" : `Coloured by ${name}`);
  }

  async togglePanel(layer: Layer): Promise<void> {
    if (!this.possible.includes(layer)) return;
    const panels = this.possible.filter((one) => this.shown.includes(one) !== (one === layer));
    if (!panels.length) {
      say("At least one panel must stay open");
      return;
    }
    const column = this.view.column ?? this.dataset.columns[0]?.name ?? null;
    await this.open({ ...this.view, panels, column: panels.includes("column") ? column : this.view.column });
    say(counted(panels.length, "panel"));
  }

  look(camera: Camera | null): void {
    this.view = { ...this.view, camera };
    this.inspector.leave();
    this.scene.look(camera);
    clearTimeout(this.saving);
    this.saving = setTimeout(() => this.write(false), SETTLE);
  }

  async select(polygon: number[] | null): Promise<void> {
    await this.open({ ...this.view, region: polygon });
    if (!polygon) say("Region removed");
  }

  saveComparison(): void {
    if (this.comparison) download(this.comparison, this.dataset.title);
  }

  /** A phrase about a gene. */
  private geneFacts(gene: string): string {
    const { names, reliability } = this.store.genes;
    const at = names.indexOf(gene);
    const trust = reliability[at] ?? null;
    return origin(this.store.genes, at) + (trust === null ? "" : `, reliability ${figure(trust)}`);
  }

  private about(): void {
    const { gene } = this.view;
    byId("about").hidden = gene === null;
    byId("about-gene").textContent = gene ?? "";
    byId("about-facts").textContent = gene === null ? "" : this.geneFacts(gene);
  }

  follow(): void {
    this.panels.follow(this.lasso.draft ?? this.view.region);
  }

  /** Called when another dataset is shown. */
  private change(): void {
    this.inspector.forget();
    clearComparison();
    fillFor(this.dataset, this.dataset.kind === "placed" && this.otherTissue(this.store) !== null);
    this.search.offer(this.store.genes);
    document.title = `${this.dataset.title} · cellweft`;
  }

  /** Fill in the parts of the view that are not set; an unknown gene in the URL gives a message. */
  private completed(view: View, tell: boolean): View {
    const { genes } = this.store;
    const column = this.dataset.columns.find((one) => one.name === view.column)
      ?? this.dataset.columns.find((one) => one.kind === "category" && one.name !== this.dataset.slices)
      ?? this.dataset.columns[0];
    const known = view.gene !== null && genes.names.includes(view.gene);
    if (tell && view.gene !== null && !known && genes.names.length) void this.showGene(view.gene);
    return { ...view, gene: known ? view.gene : likelyGene(genes), column: column?.name ?? null };
  }

  private otherTissue(store: Store): Store | null {
    const others = this.session.datasets.filter((one) => one.id !== store.dataset.id && one.kind !== "placed");
    const found = others.find((one) => one.kind === "imputed") ?? others[0];
    return found ? (this.stores.get(found.id) as Store) : null;
  }

  private async tissueOf(store: Store, view: View): Promise<Store | null> {
    const tissue = store.dataset.kind === "placed" && view.tissue ? this.otherTissue(store) : null;
    await tissue?.loadPositions();
    return tissue;
  }

  /** Hidden cells: those of hidden categories, and of other slices. */
  private async filter(): Promise<void> {
    const hidden = new Uint8Array(this.dataset.cells);
    let elsewhere: Uint8Array | null = null;
    const { column, view } = this;
    if (view.off.length && column?.kind === "category") {
      const codes = await this.store.column(column);
      codes.forEach((code, cell) => (hidden[cell] = view.off.includes(code) ? 1 : 0));
    }
    const slices = this.dataset.columns.find((one) => one.name === this.dataset.slices);
    if (view.slice !== null && slices?.kind === "category") {
      const wanted = slices.categories.indexOf(view.slice);
      elsewhere = Uint8Array.from(await this.store.column(slices), (code) => (code === wanted ? 0 : 1));
      elsewhere.forEach((one, cell) => (hidden[cell] |= one));
    }
    this.elsewhere = elsewhere;
    this.hidden = hidden;
    this.within = view.region ? cellsWithin(view.region, this.store.positions) : null;
    this.within?.forEach((_, cell) => {
      if (hidden[cell] && this.within) this.within[cell] = 0;
    });
    this.selected = this.within?.reduce((sum, one) => sum + one, 0) ?? 0;
    this.scene.dimming = this.within !== null;
  }

  private compared = "";

  /** Compare the region with the rest, unless this was the last comparison. */
  private async compareRegion(visit: number): Promise<void> {
    const key = this.within ? JSON.stringify([this.dataset.id, this.view.region, this.view.off, this.view.slice]) : "";
    if (key === this.compared) {
      markGene(this.view.gene);
      return;
    }
    this.compared = key;
    this.comparison = null;
    if (!this.within) return clearComparison();
    showWaiting(this.selected);
    if (!this.selected || !this.dataset.layers.length) {
      byId("region-count").textContent = this.selected ? `${counted(this.selected, "cell")}; this file contains no expression values.` : "There are no cells in this region.";
      return;
    }
    try {
      const comparison = await api.compare(this.dataset, packBits(this.within));
      if (key !== this.compared) return;
      this.comparison = comparison;
      showComparison(comparison, this.view.gene, (gene) => void this.showGene(gene));
      say(`${counted(comparison.inside, "cell")} compared with ${count(comparison.outside)}: ${comparison.genes[0]?.name ?? "no gene"} differs most`);
    } catch (error) {
      this.compared = "";
      if (visit === this.visit) showError(error);
    }
  }

  private write(visitOfItsOwn: boolean): void {
    const hash = toHash(this.view);
    if (hash === location.hash) return;
    if (visitOfItsOwn) history.pushState(null, "", hash);
    else history.replaceState(null, "", hash);
  }
}
