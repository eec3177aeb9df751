import { describe } from "bun:test";
import { inFile, inMemory } from "../support/history.ts";
import { contract } from "./contract.ts";

describe("SQLite in memory", () => contract(inMemory));
describe("SQLite in a file", () => contract(inFile));
