/** The panels on the screen: made, filled with values, arranged side by side. */
import type { ValueLayer } from "./api";
import { fitScale, type Bounds } from "./camera";
import { inOrder, type Cloud } from "./cloud";
import { mapBytes, mapStart, otherMap, paletteBytes, seenOn, type Colour } from "./colours";
import { byId } from "./dom";
import type { Inspector } from "./inspector";
import { drawLegend, type LegendContent } from "./legend";
import { showError } from "./notice";
import { Panel } from "./panel";
import { watchPointer } from "./pointer";
import type { Layered } from "./scene";
import { TITLES } from "./selects";
import type { ViewerState } from "./state";
import { UNITS } from "./text";
import { themeColours, watchTheme } from "./theme";
import type { Layer } from "./view";

const GAP = 1; // pixels between panels, as in the style sheet
const ROWS_FROM = 1.05; // panels are placed side by side unless several rows enlarge the tissue by this factor

export class Panels {
  private readonly box = byId("panels");
  private panels: Panel[] = [];
  private counts: number[] | null = null;
  private limits: Partial<Record<"expression" | "uncertainty", [number, number]>> = {};
  private missing = false;
  private colours: { missing: Colour; tissue: Colour } = { missing: [0, 0, 0], tissue: [0, 0, 0] };
  private seen = "";

  constructor(
    private readonly viewer: ViewerState,
    private readonly inspector: Inspector,
  ) {
    watchTheme(() => this.recolour());
    new ResizeObserver(() => this.resize()).observe(this.box);
  }

  /** Update panels, values and legend to the view. */
  async arrange(fresh: boolean): Promise<void> {
    const { viewer } = this;
    if (fresh) for (const panel of this.panels.splice(0)) panel.close();
    const kept = this.panels.filter((panel) => viewer.shown.includes(panel.layer));
    for (const panel of this.panels) if (!kept.includes(panel)) panel.close();
    const added = viewer.shown.length > kept.length;
    this.panels = viewer.shown.map((layer) => kept.find((panel) => panel.layer === layer) ?? this.make(layer));
    this.box.replaceChildren(...this.panels.map((panel) => panel.element));
    viewer.scene.show(this.panels.map((panel) => panel.picture));
    viewer.scene.bounds = this.bounds();
    this.aim();
    this.resize();
    this.limits = {};
    this.missing = false;
    await Promise.all(this.panels.map((panel) => this.fill(panel)));
    this.legend();
    viewer.scene.refresh();
    if (added) viewer.scene.sketch();
  }

  follow(polygon: readonly number[] | null): void {
    const { lens } = this.viewer.scene;
    for (const panel of this.panels) panel.follow(lens, polygon, this.inspector.place);
  }

  /** The middle of the first panel on the screen. */
  middle(): { x: number; y: number } {
    const box = this.panels[0].canvas.getBoundingClientRect();
    return { x: box.left + box.width / 2, y: box.top + box.height / 2 };
  }

  private make(layer: Layer): Panel {
    const { viewer, inspector } = this;
    const panel = new Panel(layer, viewer.dataset.unit);
    watchPointer(panel.canvas, {
      lens: () => viewer.scene.lens,
      look: (camera) => viewer.look(camera),
      lassoing: () => viewer.lasso.on,
      lasso: (path, done) => viewer.lasso.trace(path, done),
      hover: (point, event) => inspector.hover(point, event),
      click: (point, event) => inspector.click(point, event),
    });
    panel.canvas.addEventListener("webglcontextlost", () => {
      if (panel.element.isConnected) showError(new Error("The connection to the graphics card was lost. Reload this page."));
    });
    return panel;
  }

  private hold(panel: Panel, cloud: Cloud, missing: Colour): Layered {
    const held = panel.picture.painter.hold(cloud.places);
    return { cloud, held, limits: [0, 1], coded: false, plain: true, missing, swell: 1 };
  }

  /** Upload the values, colours and hidden cells of a panel. */
  private async fill(panel: Panel): Promise<void> {
    const { viewer } = this;
    const { store } = viewer;
    const isNew = panel.cells === null;
    panel.cells ??= this.hold(panel, store.cloud, this.colours.missing);
    this.fillTissue(panel);
    this.flag(panel, panel.cells);
    if (isNew) this.bring(panel); // grey cells until their values are loaded
    if (panel.layer === "column") await this.fillColumn(panel, panel.cells);
    else await this.fillGene(panel, panel.cells, panel.layer);
    if (viewer.store === store && panel.element.isConnected) this.bring(panel);
  }

  private bring(panel: Panel): void {
    panel.arrange();
    this.viewer.scene.refresh(panel.picture);
  }

  /** Upload which cells of a panel are hidden, and which are in the region. */
  private flag(panel: Panel, cells: Layered): void {
    const { hidden, within, store } = this.viewer;
    const { order } = store.cloud;
    const flags = new Uint8Array(order.length);
    for (let at = 0; at < order.length; at++) flags[at] = hidden[order[at]] ? 0 : within?.[order[at]] ? 2 : 1;
    panel.picture.painter.setFlags(cells.held, flags);
  }

  private fillTissue(panel: Panel): void {
    const { behind } = this.viewer;
    if (behind && !panel.tissue) panel.tissue = this.hold(panel, behind.cloud, this.colours.tissue);
    if (!behind && panel.tissue) {
      panel.picture.painter.release(panel.tissue.held);
      panel.tissue = null;
    }
  }

  private async fillColumn(panel: Panel, cells: Layered): Promise<void> {
    const { column, store } = this.viewer;
    if (!column) return;
    const key = `column ${column.name} ${this.viewer.view.map}`;
    const values = await store.column(column);
    const categories = column.kind === "category" ? column : null;
    this.counts = null;
    if (categories) {
      this.counts = categories.categories.map(() => 0);
      const { elsewhere } = this.viewer;
      for (let cell = 0; cell < values.length; cell++) {
        if (!elsewhere?.[cell] && values[cell] < categories.categories.length) this.counts[values[cell]]++;
      }
    }
    if (panel.filled !== key) {
      const ordered = inOrder(values, store.cloud.order);
      panel.holdsMissing = ordered.some((value) => value < -1e37);
      const { painter } = panel.picture;
      painter.setValues(cells.held, ordered);
      painter.setColours(cells.held, categories ? paletteBytes(this.palette()) : mapBytes(this.viewer.view.map, mapStart(this.viewer.scene.ground)));
      cells.plain = false;
      cells.coded = categories !== null;
      if (column.kind === "number") cells.limits = [column.low, column.high > column.low ? column.high : column.low + 1];
      panel.filled = key;
    }
    this.missing ||= panel.holdsMissing;
    panel.name(column.name, "");
  }

  private async fillGene(panel: Panel, cells: Layered, layer: ValueLayer): Promise<void> {
    const { store, view } = this.viewer;
    const gene = view.gene ?? "";
    const at = store.genes.names.indexOf(gene);
    if (layer === "measured" && !store.genes.in_tissue[at]) {
      cells.plain = true;
      panel.filled = "";
      panel.name(TITLES[layer], gene, `${gene} ${store.genes.measured[at] ? "is not in this tissue" : "was not measured"}.`);
      return;
    }
    const { values, low, high } = await store.gene(gene, layer);
    if (gene !== this.viewer.view.gene) return;
    cells.limits = [low, high > low ? high : low + 1];
    this.limits[layer === "uncertainty" ? "uncertainty" : "expression"] = cells.limits;
    const map = layer === "uncertainty" ? otherMap(view.map) : view.map;
    const key = `${layer} ${gene} ${map}`;
    if (panel.filled !== key) {
      const ordered = inOrder(values, store.cloud.order);
      panel.holdsMissing = ordered.some((value) => value < -1e37);
      panel.picture.painter.setValues(cells.held, ordered);
      panel.picture.painter.setColours(cells.held, mapBytes(map, mapStart(this.viewer.scene.ground)));
      cells.plain = false;
      panel.filled = key;
    }
    this.missing ||= panel.holdsMissing;
    panel.name(TITLES[layer], gene);
  }

  private legend(): void {
    const { viewer } = this;
    const withColumn = viewer.shown.includes("column");
    const content: LegendContent = {
      map: viewer.view.map,
      start: mapStart(viewer.scene.ground),
      expression: this.limits.expression ?? null,
      uncertainty: this.limits.uncertainty ?? null,
      unit: UNITS[viewer.dataset.scale],
      interval: viewer.dataset.interval,
      column: withColumn ? viewer.column : null,
      counts: this.counts,
      colours: this.palette(),
      off: viewer.view.off,
      missing: this.missing,
    };
    const codes = viewer.column?.kind === "category" ? viewer.column.categories.map((_, code) => code) : [];
    const { off } = viewer.view;
    drawLegend(content, {
      toggle: (code) => {
        const next = off.includes(code) ? off.filter((one) => one !== code) : [...off, code].sort((a, b) => a - b);
        void viewer.open({ ...viewer.view, off: next });
      },
      switchAll: (on) => void viewer.open({ ...viewer.view, off: on ? [] : codes }),
      swapMap: () => void viewer.open({ ...viewer.view, map: otherMap(viewer.view.map) }),
    });
  }

  /** The bounds to fit: all cells and the tissue, or the cells of the slice. */
  private bounds(): Bounds {
    const { store, behind, view } = this.viewer;
    if (view.slice !== null) return store.cloudBounds(this.viewer.hidden);
    const own = store.cloud.bounds;
    const other = behind?.cloud.bounds ?? own;
    return [Math.min(own[0], other[0]), Math.min(own[1], other[1]), Math.max(own[2], other[2]), Math.max(own[3], other[3])];
  }

  /** Move the camera to the position in the view, if it is elsewhere. */
  private aim(): void {
    const { scene, view, dataset } = this.viewer;
    const wanted = JSON.stringify([dataset.id, scene.bounds, view.camera]);
    if (wanted !== this.seen && !(view.camera && JSON.stringify(view.camera) === JSON.stringify(scene.camera))) scene.look(view.camera);
    this.seen = wanted;
  }

  private resize(): void {
    const { clientWidth: width, clientHeight: height } = this.box;
    if (!this.panels.length || !width || !height) return;
    const { scene } = this.viewer;
    const number = this.panels.length;
    const narrow = matchMedia("(max-width: 760px)").matches;
    const layouts = Array.from({ length: narrow ? 1 : number }, (_, at) => at + 1).map((columns) => {
      const size = { width: (width - GAP * (columns - 1)) / columns, height: height / Math.ceil(number / columns) };
      return { columns, scale: fitScale(scene.bounds, size) };
    });
    const largest = layouts.reduce((a, b) => (b.scale >= a.scale ? b : a));
    const row = layouts[layouts.length - 1];
    const best = largest.scale > ROWS_FROM * row.scale ? largest : row;
    this.box.style.setProperty("--columns", String(best.columns));
    const { clientWidth, clientHeight } = this.panels[0].canvas;
    if (clientWidth && clientHeight) scene.resize(clientWidth, clientHeight, Math.min(2, devicePixelRatio));
  }

  private recolour(): void {
    const { ground, missing, tissue } = themeColours();
    this.colours = { missing, tissue };
    this.viewer.scene.ground = ground;
    for (const panel of this.panels) {
      if (panel.cells) panel.cells.missing = missing;
      if (panel.tissue) panel.tissue.missing = tissue;
    }
    this.viewer.scene.refresh();
    if (!this.panels.length) return;
    for (const panel of this.panels) panel.filled = "";
    void this.viewer.open(this.viewer.view);
  }

  /** Colours of the column's categories on the current background. */
  private palette(): string[] {
    const { column, scene } = this.viewer;
    return column?.kind === "category" ? column.colors.map((colour) => seenOn(scene.ground, colour)) : [];
  }
}
