/** Colour maps that the colour-blind can read, as bytes for the shader and as text for the legend. Pure. */
import { interpolateCividis, interpolateViridis } from "d3-scale-chromatic";
import type { MapName } from "./view";

export type Colour = readonly [number, number, number]; // 0 to 255

export function parseColour(text: string): Colour {
  const hex = /^#([0-9a-f]{2})([0-9a-f]{2})([0-9a-f]{2})$/i.exec(text);
  if (hex) return [parseInt(hex[1], 16), parseInt(hex[2], 16), parseInt(hex[3], 16)];
  const parts = /^rgb\((\d+), ?(\d+), ?(\d+)\)$/.exec(text);
  return parts ? [Number(parts[1]), Number(parts[2]), Number(parts[3])] : [128, 128, 128];
}

const LEAST_CONTRAST = 32; // of 255, in some channel

const FIRST_ON_DARK = 0.25; // part of a map at which it starts on dark ground, where its first colours vanish

const MAPS = { viridis: interpolateViridis, cividis: interpolateCividis };

/** The part of a map that its lowest value has, on a ground: the first colours are nearly black. */
export function mapStart(ground: Colour): number {
  return ground[1] < 128 ? FIRST_ON_DARK : 0;
}

/** A colour map's 256 colours as RGBA, from a part of it on. */
export function mapBytes(name: MapName, start = 0): Uint8Array {
  const bytes = new Uint8Array(256 * 4);
  for (let step = 0; step < 256; step++) bytes.set([...parseColour(MAPS[name](start + (1 - start) * (step / 255))), 255], 4 * step);
  return bytes;
}

/** A colour, unless it would vanish on the ground (black on dark, white on light): then a grey that does not. */
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

/** The map as a gradient for CSS, low to high, from a part of it on. */
export function gradient(name: MapName, start = 0): string {
  const stops = Array.from({ length: 17 }, (_, step) => MAPS[name](start + (1 - start) * (step / 16)));
  return `linear-gradient(to right, ${stops.join(", ")})`;
}

/** The map for uncertainty is the other one, so that the two scales are not taken for each other. */
export function otherMap(name: MapName): MapName {
  return name === "viridis" ? "cividis" : "viridis";
}
