/** Examples that have a test, compiled as one program; its argument is the name of one. */
const examples: Readonly<Record<string, () => Promise<unknown>>> = {
  control: () => import("../src/control.js"),
  edits: () => import("../src/edits.js"),
  identity: () => import("../src/identity.js"),
  progress: () => import("../src/progress.js"),
  reader: () => import("../src/reader.js"),
  retention: () => import("../src/retention.js"),
  retries: () => import("../src/retries.js"),
  slots: () => import("../src/slots.js"),
  "spanning-limits": () => import("../src/spanning-limits.js")
}

void examples[process.argv[2]!]!()
