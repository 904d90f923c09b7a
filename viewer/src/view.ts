/** The view, and its representation in the hash of the URL. Pure. */

export const LAYERS = ["column", "measured", "imputed", "uncertainty"] as const;
export type Layer = (typeof LAYERS)[number];
export type MapName = "viridis" | "cividis";

export interface View {
  dataset: number;
  gene: string | null;
  column: string | null;
  /** Panels shown; null: the defaults of the dataset. */
  panels: Layer[] | null;
  /** Centre of the picture in the dataset's units, and zoom in powers of two above fitting; null: all of it. */
  camera: { x: number; y: number; z: number } | null;
  map: MapName;
  /** Codes of the hidden categories of the column. */
  off: number[];
  slice: string | null;
  tissue: boolean;
  /** Corners of the region compared: x, y, x, y ... */
  region: number[] | null;
}

export const FIRST_VIEW: View = {
  dataset: 0,
  gene: null,
  column: null,
  panels: null,
  camera: null,
  map: "viridis",
  off: [],
  slice: null,
  tissue: true,
  region: null,
};

/** Nine significant digits for the camera: less than a pixel, however close. */
function exact(value: number): string {
  return String(Number(value.toPrecision(9)));
}

/** Six for the corners of a region, so that the URL stays short enough to share. */
function short(value: number): string {
  return String(Number(value.toPrecision(6)));
}

function numbers(text: string | null): number[] {
  if (!text) return [];
  return text.split(",").filter((part) => part !== "").map(Number).filter(Number.isFinite);
}

export function toHash(view: View): string {
  const parts = new URLSearchParams();
  parts.set("d", String(view.dataset));
  if (view.gene !== null) parts.set("g", view.gene);
  if (view.column !== null) parts.set("c", view.column);
  if (view.panels) parts.set("m", view.panels.join(","));
  if (view.camera) {
    parts.set("x", exact(view.camera.x));
    parts.set("y", exact(view.camera.y));
    parts.set("z", exact(view.camera.z));
  }
  if (view.map !== "viridis") parts.set("p", view.map);
  if (view.off.length) parts.set("off", view.off.join(","));
  if (view.slice !== null) parts.set("s", view.slice);
  if (!view.tissue) parts.set("t", "0");
  if (view.region) parts.set("r", view.region.map(short).join(","));
  return "#" + parts.toString().replaceAll("%2C", ",");
}

/** Parse a hash; invalid parts are ignored. */
export function fromHash(hash: string): View {
  const parts = new URLSearchParams(hash.replace(/^#/, ""));
  const [x, y, z] = ["x", "y", "z"].map((key) => (parts.get(key) ? Number(parts.get(key)) : NaN));
  const dataset = Number(parts.get("d") ?? 0);
  const asked = parts.get("m")?.split(",") ?? [];
  const panels = LAYERS.filter((layer) => asked.includes(layer));
  const region = numbers(parts.get("r"));
  return {
    dataset: Number.isInteger(dataset) && dataset >= 0 ? dataset : 0,
    gene: parts.get("g") || null,
    column: parts.get("c") || null,
    panels: panels.length ? panels : null,
    camera: [x, y, z].every(Number.isFinite) ? { x, y, z } : null,
    map: parts.get("p") === "cividis" ? "cividis" : "viridis",
    off: numbers(parts.get("off")).filter((code) => Number.isInteger(code) && code >= 0),
    slice: parts.get("s"),
    tissue: parts.get("t") !== "0",
    region: region.length >= 6 && region.length % 2 === 0 ? region : null,
  };
}
