/** The path below which the server is, without a slash at its end; empty for one with a host of its own. */
export const BASE: string = document.documentElement.dataset.base ?? "";
