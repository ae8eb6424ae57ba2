#!/usr/bin/env python3
"""Scans the TLS of an ingress listener with sslyze, and compares it with the intermediate profile of Mozilla
(https://wiki.mozilla.org/Security/Server_Side_TLS). `scripts/tls-scan.sh` installs sslyze and runs this.

The certificates are made for the scan, once with an ECDSA key and once with an RSA key. Their authority is unknown to the
scanner, so the chain of trust and the lifetime of the certificate are not compared."""

import argparse
import pathlib
import re
import subprocess
import sys
import tempfile

from sslyze import ScanCommand, ScanCommandAttemptStatusEnum, Scanner, ServerNetworkLocation, ServerScanRequest
from sslyze.mozilla_tls_profile import tls_config_checker as profiles

# Findings that are about the certificate of the scan.
ABOUT_CERTIFICATE = ("certificate_path_validation", "maximum_certificate_lifespan")
# What the profile says nothing about. sslyze does not notice that sessions are resumed, because each resumed connection gets
# a new ticket; `tls_tickets` of the suite tests that.
MORE = {ScanCommand.TLS_1_3_EARLY_DATA}


def certificate(folder, key):
    files = folder / f"{key}.crt", folder / f"{key}.key"
    kind = {"ecdsa": ["ec", "-pkeyopt", "ec_paramgen_curve:P-256"], "rsa": ["rsa:2048"]}[key]
    subprocess.run(["openssl", "req", "-x509", "-newkey", *kind, "-nodes", "-days", "90", "-subj", "/CN=localhost", "-sha256",
                    "-addext", "subjectAltName=DNS:localhost,IP:127.0.0.1", "-out", files[0], "-keyout", files[1]],
                   check=True, capture_output=True)
    return files


def start(binary, folder, files):
    """Starts Callgate with this certificate. Returns the process and its port."""
    config = folder / "callgate.yaml"
    config.write_text(f"""listen: {{ ingress: [ {{ address: 127.0.0.1:0, tls: {{ certificate: {files[0]}, key: {files[1]} }} }} ] }}
agent: {{ address: 127.0.0.1:9 }}
routes: [ {{ name: open, path: /open, open: true, forward: /in }} ]
""")
    process = subprocess.Popen([binary, "run", "-c", config], stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
    for line in process.stderr:
        if (found := re.search(r"ingress on \S+:(\d+)", line)):
            return process, int(found[1])
    raise SystemExit("tls-scan: Callgate did not start")


def scan(port):
    """Returns the findings."""
    scanner = Scanner()
    commands = profiles.SCAN_COMMANDS_NEEDED_BY_MOZILLA_CHECKER | MORE
    location = ServerNetworkLocation(hostname="localhost", port=port, ip_address="127.0.0.1")
    scanner.queue_scans([ServerScanRequest(server_location=location, scan_commands=commands)])
    (result,) = scanner.get_results()
    if result.scan_result is None:
        return {"scan": result.connectivity_error_trace or "the listener could not be scanned"}
    found = {}
    for command in commands:
        attempt = getattr(result.scan_result, command.value)
        if attempt.status != ScanCommandAttemptStatusEnum.COMPLETED:
            found[command.value] = f"the scan failed: {attempt.error_reason}"
    if found:
        return found
    intermediate = profiles.MozillaTlsConfiguration.get(profiles.TlsConfigurationEnum.MOZILLA_INTERMEDIATE)
    try:
        profiles.check_server_against_tls_configuration(result, intermediate)
    except profiles.ServerNotCompliantWithTlsConfiguration as error:
        found = {issue: text for issue, text in error.issues.items() if issue not in ABOUT_CERTIFICATE}
    scanned = result.scan_result
    if scanned.tls_1_3_early_data.result.supports_early_data:
        found["early_data"] = "early data is accepted"
    if scanned.session_renegotiation.result.is_vulnerable_to_client_renegotiation_dos:
        found["session_renegotiation"] = "clients can renegotiate"
    return found


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--callgate", required=True)
    options = parser.parse_args()
    failed = False
    for key in ("ecdsa", "rsa"):
        with tempfile.TemporaryDirectory() as name:
            folder = pathlib.Path(name)
            process, port = start(options.callgate, folder, certificate(folder, key))
            try:
                found = scan(port)
            finally:
                process.kill()
                process.wait()
        print(f"tls-scan, {key}: " + ("as in the intermediate profile" if not found else f"{len(found)} findings"))
        for issue, text in found.items():
            print(f"    {issue}: {text}", file=sys.stderr)
        failed |= bool(found)
    return int(failed)


if __name__ == "__main__":
    sys.exit(main())
