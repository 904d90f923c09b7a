import { describe, expect, it } from "vitest";
import { FIRST_VIEW, fromHash, toHash, type View } from "../src/view";

const FULL: View = {
  dataset: 2,
  gene: "HLA-DRA;x &y",
  column: "cell type",
  panels: ["column", "measured"],
  camera: { x: 12.5, y: -3, z: 1.25 },
  map: "cividis",
  off: [0, 3],
  slice: "S 1",
  tissue: false,
  region: [0, 0, 10, 0, 10, 5.5],
};

describe("the address's hash", () => {
  it("comes back as it went", () => {
    expect(fromHash(toHash(FULL))).toEqual(FULL);
    expect(fromHash(toHash(FIRST_VIEW))).toEqual(FIRST_VIEW);
  });

  it("is as agreed with the server", () => {
    const view = { ...FIRST_VIEW, gene: "Gad1", column: "cell_type", panels: ["imputed" as const] };
    expect(toHash(view)).toBe("#d=0&g=Gad1&c=cell_type&m=imputed");
  });

  it("says nothing where it makes no sense", () => {
    expect(fromHash("#d=-1&m=nonsense&x=1&y=&z=b&off=a,1,-2&r=1,2,3&p=jet")).toEqual({ ...FIRST_VIEW, off: [1] });
    expect(fromHash("")).toEqual(FIRST_VIEW);
  });
});
