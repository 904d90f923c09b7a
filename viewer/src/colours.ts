/** Colour maps for colour-blind readers, as bytes for the shader and as text for the legend. Pure. */
import { interpolateCividis, interpolateViridis } from "d3-scale-chromatic";
import type { MapName } from "./view";

export type Colour = readonly [number, number, number]; // 0 to 255

export function parseColour(text: string): Colour {
  const hex = /^#([0-9a-f]{2})([0-9a-f]{2})([0-9a-f]{2})$/i.exec(text);
  if (hex) return [parseInt(hex[1], 16), parseInt(hex[2], 16), parseInt(hex[3], 16)];
  const parts = /^rgb\((\d+), ?(\d+), ?(\d+)\)$/.exec(text);
  return parts ? [Number(parts[1]), Number(parts[2]), Number(parts[3])] : [128, 128, 128];
}

const LEAST_CONTRAST = 32; // out of 255, in at least one channel

const FIRST_ON_DARK = 0.25; // where a map starts on a dark background, on which its first colours are invisible

const MAPS = { viridis: interpolateViridis, cividis: interpolateCividis };

/** Where a map starts on a background: its first colours are nearly black. */
export function mapStart(ground: Colour): number {
  return ground[1] < 128 ? FIRST_ON_DARK : 0;
}

/** The 256 colours of a map as RGBA, starting at some fraction of it. */
export function mapBytes(name: MapName, start = 0): Uint8Array {
  const bytes = new Uint8Array(256 * 4);
  for (let step = 0; step < 256; step++) bytes.set([...parseColour(MAPS[name](start + (1 - start) * (step / 255))), 255], 4 * step);
  return bytes;
}

/** A colour, or a grey if the colour is invisible on the background (black on dark, white on light). */
export function seenOn(ground: Colour, text: string): string {
  const colour = parseColour(text);
  if (Math.max(...colour.map((part, at) => Math.abs(part - ground[at]))) >= LEAST_CONTRAST) return text;
  return ground[1] < 128 ? "#c4c9ca" : "#5c6366";
}

/** Colours of categories as RGBA. */
export function paletteBytes(colours: readonly string[]): Uint8Array {
  const bytes = new Uint8Array(Math.max(1, colours.length) * 4);
  colours.forEach((colour, code) => bytes.set([...parseColour(colour), 255], 4 * code));
  return bytes;
}

/** The map as a CSS gradient from low to high, starting at some fraction of it. */
export function gradient(name: MapName, start = 0): string {
  const stops = Array.from({ length: 17 }, (_, step) => MAPS[name](start + (1 - start) * (step / 16)));
  return `linear-gradient(to right, ${stops.join(", ")})`;
}

/** Uncertainty uses the other map, so that the two scales are not confused. */
export function otherMap(name: MapName): MapName {
  return name === "viridis" ? "cividis" : "viridis";
}
