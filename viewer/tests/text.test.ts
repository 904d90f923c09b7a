import { describe, expect, it } from "vitest";
import { count, counted, figure, origin, toCsv, UNITS } from "../src/text";

describe("numbers as text", () => {
  it("have three digits", () => {
    expect(figure(1.23456)).toBe("1.23");
    expect(figure(-0.5)).toBe("−0.5");
    expect(figure(0)).toBe("0");
    expect(figure(0.00012)).toBe("1.2e−4");
    expect(figure(12345)).toBe("12300");
    expect(figure(null)).toBe("–");
    expect(figure(NaN)).toBe("–");
    expect(count(1234567)).toBe("1,234,567");
    expect(counted(1, "cell")).toBe("1 cell");
    expect(counted(0, "gene")).toBe("0 genes");
    expect(counted(1234, "gene")).toBe("1,234 genes");
  });
});

describe("what values are called", () => {
  it("follows the scale of the result", () => {
    expect(UNITS).toEqual({ log: "log-normalised", counts: "counts" });
  });
});

describe("where the values of a gene come from", () => {
  it("tells genes that were hidden from those that nobody measured", () => {
    const flags = { measured: [true, false, false], in_tissue: [true, true, false] };
    const genes = { names: ["a", "b", "c"], reliability: [null, null, null], ...flags };
    expect([0, 1, 2].map((at) => origin(genes, at))).toEqual(["measured", "measured, but hidden from the imputation", "imputed only"]);
  });
});

describe("the comparison as CSV", () => {
  it("has a row per gene, quoted where need be, with full numbers", () => {
    const gene = { inside: 1.5, outside: 0.25, difference: 1.25, reliability: null, measured: false, score: -1 / 3 };
    const table = { inside: 2, outside: 3, layer: "imputed", genes: [{ name: 'a,"b"', ...gene }, { name: "c", ...gene, reliability: 0.5 }] };
    expect(toCsv(table)).toBe(
      "gene,inside,outside,difference,reliability,measured,score\r\n"
        + '"a,""b""",1.5,0.25,1.25,,false,-0.3333333333333333\r\n'
        + "c,1.5,0.25,1.25,0.5,false,-0.3333333333333333\r\n",
    );
  });
});
