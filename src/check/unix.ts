import { accessSync, constants, lstatSync } from "node:fs";
import { dirname } from "node:path";
import { faultCode } from "../lib/log.ts";
import { fault, good, type Report } from "./report.ts";

const SUBJECT = "UNIX_SOCKET";

/** Whether a socket can be made at this path, where nothing is changed. */
export function inspectUnixSocket(path: string): Report[] {
  try {
    accessSync(dirname(path), constants.W_OK | constants.X_OK);
    const found = lstatSync(path, { throwIfNoEntry: false });
    if (!found) return [good(SUBJECT, "will be created")];
    if (found.isSocket())
      return [good(SUBJECT, "there already, from this server or an earlier one")];
    return [fault(SUBJECT, "no socket", "Something else is at that path")];
  } catch (error) {
    const note = "Its folder must exist and be writable for the server's user";
    return [fault(SUBJECT, `can't be made: ${faultCode(error)}`, note)];
  }
}
