/** Builds the page into the Python package. The same sources and lock file give the same bytes. */
import { createHash } from "node:crypto";
import { readdirSync, readFileSync, statSync } from "node:fs";
import { join, relative, sep } from "node:path";
import { defineConfig, type Plugin } from "vitest/config";

const root = import.meta.dirname;
const PARTS = ["index.html", "package-lock.json", "package.json", "public", "src", "tsconfig.json", "vite.config.ts"];

function filesOf(path: string): string[] {
  return statSync(path).isDirectory() ? readdirSync(path).flatMap((name) => filesOf(join(path, name))) : [path];
}

/** SHA-256 of all that the page is built from; tests/viewer computes the same to notice a forgotten build. */
function sourcesHash(): string {
  const files = PARTS.flatMap((part) => filesOf(join(root, part))).map((path) => relative(root, path).split(sep).join("/"));
  const hash = createHash("sha256");
  for (const file of files.sort()) {
    hash.update(file).update("\0").update(readFileSync(join(root, file))).update("\0");
  }
  return hash.digest("hex");
}

const recordSources: Plugin = {
  name: "cellweft-sources",
  transformIndexHtml: () => [
    { tag: "meta", attrs: { name: "cellweft-sources", content: sourcesHash() }, injectTo: "head" },
  ],
};

export default defineConfig({
  root,
  base: "./",
  publicDir: "public",
  plugins: [recordSources],
  build: {
    outDir: process.env.CELLWEFT_PAGE ?? "../src/cellweft/viewer/page",
    emptyOutDir: true,
    assetsInlineLimit: 0,
    modulePreload: false,
    target: "es2022",
    license: { fileName: "licenses.md" },
  },
  test: { include: ["tests/**/*.test.ts"] },
});
