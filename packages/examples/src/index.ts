export * from "./hello.js"
