export * as Frames from "./Frames.js"
export * as NodeConnection from "./NodeConnection.js"
export * as NodeRpcs from "./NodeRpcs.js"
export * as RunsClient from "./RunsClient.js"
