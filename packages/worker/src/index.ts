export * as LocalLinks from "./LocalLinks.js"
export * as RemoteLinks from "./RemoteLinks.js"
export * as Worker from "./Worker.js"
