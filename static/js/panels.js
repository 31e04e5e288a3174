// The panels of an instance, in the order of their tabs; the first that is for an instance is shown where none is named.
// A new one is a file of its own and a line here.
//
// `make(context)` gets what a view gets, and `instance` as it is by then (`store` tells what becomes of it); it returns
// {element, destroy()}. `name` is the last part of the address, `isFor(instance)` whether such an instance has it.

import { backupsPanel } from "./backups.js";
import { consolePanel } from "./console.js";
import { filesPanel } from "./files.js";

export const PANELS = [
  { name: "console", label: "Console", make: consolePanel, isFor: () => true },
  { name: "backups", label: "Backups", make: backupsPanel, isFor: ({ kind }) => kind === "game" },
  { name: "files", label: "Files", make: filesPanel, isFor: () => true },
];
