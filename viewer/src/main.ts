/** Starts the page, and connects keys and buttons to their actions. */
import "./style.css";
import { Viewer } from "./viewer";
import { byId } from "./dom";
import { watchKeys } from "./keys";
import { hideError, showError } from "./notice";

const PAN = 0.12; // fraction of the panel by which an arrow key pans

const viewer = new Viewer();
const help = byId<HTMLDialogElement>("help");

function zoom(step: number): void {
  const { lens } = viewer.scene;
  viewer.look(lens.zoomed(step, lens.size.width / 2, lens.size.height / 2));
}

/** Close what was opened last: message, card, lasso, region. */
function clear(): void {
  if (!byId("notice").hidden) hideError();
  else if (viewer.lasso.on) viewer.lasso.stop();
  else if (!viewer.inspector.forget() && viewer.view.region) void viewer.select(null);
}

watchKeys({
  search: () => viewer.search.focus(),
  help: () => help.showModal(),
  lasso: () => viewer.lasso.toggle(viewer.scene.lens, true),
  clear,
  fit: () => viewer.look(null),
  inspect: () => viewer.inspector.middle(() => viewer.panels.middle()),
  zoom,
  arrow: (dx, dy, large) => {
    const { lens } = viewer.scene;
    if (viewer.lasso.on) viewer.lasso.arrow(dx, dy, large, lens);
    else viewer.look(lens.panned(-dx * PAN * lens.size.width, -dy * PAN * lens.size.height));
  },
  gene: (step) => viewer.stepGene(step),
  panel: (number) => {
    const layer = viewer.possible[number];
    if (layer) void viewer.togglePanel(layer);
  },
  enter: () => viewer.lasso.on && viewer.lasso.finish(),
});

byId("lasso").addEventListener("click", (event) => viewer.lasso.toggle(viewer.scene.lens, event.detail === 0));
byId("closer").addEventListener("click", () => zoom(0.5));
byId("farther").addEventListener("click", () => zoom(-0.5));
byId("fit").addEventListener("click", () => viewer.look(null));
byId("help-button").addEventListener("click", () => help.showModal());
byId("download").addEventListener("click", () => viewer.saveComparison());
byId("clear-region").addEventListener("click", () => void viewer.select(null));

let whole: number | null = null;
const started = viewer.start().catch(showError);
const ready = started.then(() => viewer.scene.whole()).then(() => {
  whole = performance.now();
});

/** For tests and benchmarks. */
const window_ = window as unknown as { cellweft: object };
window_.cellweft = {
  ready,
  state: () => ({
    dataset: viewer.view.dataset,
    gene: viewer.view.gene,
    column: viewer.view.column,
    panels: viewer.store ? viewer.shown : [],
    selected: viewer.selected,
    centre: [viewer.scene.camera.x, viewer.scene.camera.y],
    zoom: viewer.scene.camera.z,
    settled: viewer.settled,
  }),
  frames: () => ({
    times: [...viewer.scene.pace.times],
    cells: Math.round(viewer.scene.pace.budget),
    firstPicture: viewer.scene.firstPicture,
    wholePicture: whole,
  }),
};
