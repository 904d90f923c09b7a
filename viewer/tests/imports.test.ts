import { expect, test } from "vitest";

const sources: Record<string, string> = import.meta.glob("../src/*.ts", { query: "?raw", import: "default", eager: true });

/** Names of the files that a file imports, types included. */
function imported(text: string): string[] {
  return [...text.matchAll(/from "\.\/([\w-]+)"/g)].map((match) => `../src/${match[1]}.ts`);
}

test("no files import each other in a circle", () => {
  const open = new Map(Object.entries(sources).map(([file, text]) => [file, imported(text)]));
  expect(open.size).toBeGreaterThan(20);
  for (let closed = true; closed; ) {
    closed = false;
    for (const [file, needs] of open) {
      if (!needs.some((need) => open.has(need))) closed = open.delete(file);
    }
  }
  expect([...open.keys()]).toEqual([]);
});
