import { describe, expect, it } from "vitest";
import { GeneSearch } from "../src/search";

const NAMES = ["HLA-DRA", "Gad1", "Gad2", "Gadd45a", "Xgad", "DRA", "mt-Gad9", "Slc17a7"];
const found = (query: string, most = 10): string[] => new GeneSearch(NAMES).find(query, most).map((gene) => NAMES[gene]);

describe("the search for genes", () => {
  it("puts names that begin so first, short ones before long ones", () => {
    expect(found("gad")).toEqual(["Gad1", "Gad2", "Gadd45a", "mt-Gad9", "Xgad"]);
  });

  it("puts the same name before all, and a part after a dash before the middle", () => {
    expect(found("dra")).toEqual(["DRA", "HLA-DRA"]);
  });

  it("offers the first genes for nothing, none for nonsense, and no more than asked", () => {
    expect(found("", 2)).toEqual(["HLA-DRA", "Gad1"]);
    expect(found("zzz")).toEqual([]);
    expect(found("a", 3).length).toBe(3);
  });

  it("knows a name whatever its case", () => {
    expect(new GeneSearch(NAMES).exact(" slc17A7 ")).toBe(7);
    expect(new GeneSearch(NAMES).exact("Slc")).toBe(-1);
  });
});
