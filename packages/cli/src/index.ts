export * as LocalCluster from "./LocalCluster.js"
export * as Supervisor from "./Supervisor.js"
