/** Numbers and tables as text. Pure. */
import type { Comparison, Genes, Scale } from "./api";

/** What values of genes are called, by the scale of the result. */
export const UNITS: Record<Scale, string> = { log: "log-normalised", counts: "counts" };

const grouped = new Intl.NumberFormat("en-GB");

export function count(value: number): string {
  return grouped.format(value);
}

/** A count with its noun, in the singular for one. */
export function counted(value: number, noun: string): string {
  return `${count(value)} ${noun}${value === 1 ? "" : "s"}`;
}

/** Three significant digits, without an exponent where it can be. */
export function figure(value: number | null | undefined): string {
  if (value === null || value === undefined || Number.isNaN(value)) return "–";
  if (value === 0) return "0";
  const size = Math.abs(value);
  if (size >= 1e6 || size < 1e-3) return value.toExponential(1).replaceAll("-", "−").replace("e+", "e");
  return Number(value.toPrecision(3)).toString().replace("-", "−");
}

/** Where the values of a gene come from. */
export function origin(genes: Genes, at: number): string {
  if (genes.measured[at]) return "measured";
  return genes.in_tissue[at] ? "measured, but hidden from the imputation" : "imputed only";
}

function field(value: string | number | boolean | null): string {
  const text = value === null ? "" : String(value);
  return /[",\n\r]/.test(text) ? `"${text.replaceAll('"', '""')}"` : text;
}

const COLUMNS = ["name", "inside", "outside", "difference", "reliability", "measured", "score"] as const;

/** The table of a comparison as CSV (RFC 4180), a row per gene. */
export function toCsv(comparison: Comparison): string {
  const rows = comparison.genes.map((gene) => COLUMNS.map((column) => field(gene[column])).join(","));
  return ["gene,inside,outside,difference,reliability,measured,score", ...rows, ""].join("\r\n");
}
