/** Makes the URL of a path below the server's; a URL in its place stays as it is. */
export type Address = (path: string) => URL;

/** Where everything is, below `url` or the page's own origin. Throws a `TypeError` where there is neither. */
export function addressOf(url: string | URL | undefined): Address {
  const page = globalThis.location;
  if (url === undefined && !page) throw new TypeError("Option url is required outside a page");
  const base = new URL(url ?? page.origin, page?.href);
  base.protocol = base.protocol.replace("ws", "http");
  const folder = base.origin + base.pathname.replace(/\/*$/, "/");
  return (path) => new URL(path.replace(/^\//, ""), folder);
}
