import { describe, expect, test } from "bun:test";
import { dependencyFault } from "../../src/lib/fault.ts";
import { faultCode } from "../../src/lib/log.ts";

describe("what is wrong with a dependency", () => {
  test.each([
    ["WRONGPASS", "wrong_password"],
    ["NOAUTH", "wrong_password"],
    ["status_401", "wrong_password"],
    ["NOPERM", "not_permitted"],
    ["EACCES", "not_permitted"],
    ["EPERM", "not_permitted"],
    ["SQLITE_PERM", "not_permitted"],
    ["ERR_REDIS_AUTHENTICATION_FAILED", "wrong_password"],
    ["ECONNREFUSED", "connection_refused"],
    ["ConnectionRefused", "connection_refused"],
    ["ENOTFOUND", "unknown_host"],
    ["EAI_AGAIN", "unknown_host"],
    ["CERT_HAS_EXPIRED", "bad_certificate"],
    ["ERR_TLS_CERT_ALTNAME_INVALID", "bad_certificate"],
    ["DEPTH_ZERO_SELF_SIGNED_CERT", "bad_certificate"],
    ["UNABLE_TO_VERIFY_LEAF_SIGNATURE", "bad_certificate"],
    ["OOM", "out_of_memory"],
    ["READONLY", "read_only"],
    ["EROFS", "read_only"],
    ["SQLITE_READONLY", "read_only"],
    ["CERT_SIGNATURE_FAILURE", "bad_certificate"],
    ["HOSTNAME_MISMATCH", "bad_certificate"],
    ["SQLITE_FULL", "disk_full"],
    ["ENOSPC", "disk_full"],
    ["SQLITE_IOERR_WRITE", "disk_failed"],
    ["SQLITE_BUSY", "in_use"],
  ])("%s is %s, and is logged as that", (code, fault) => {
    expect(dependencyFault(code)).toBe(fault as never);
    expect(faultCode(Object.assign(new Error("secret"), { code }))).toBe(fault);
  });

  test.each(["ECONNRESET", "LOADING", "constructor", ""])("%p is nothing of the kind", (code) => {
    expect(dependencyFault(code)).toBeUndefined();
  });
});
