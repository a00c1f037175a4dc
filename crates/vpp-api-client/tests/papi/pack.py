"""Packs messages as vpp_papi does: lines of JSON in, [name, fields]; lines of hexadecimal digits out.

The argument is a file of definitions. Bytes come as {"hex": digits}.
"""

import json
import sys

from vpp_papi import VPPApiClient


def plain(value):
    return bytes.fromhex(value["hex"]) if list(value) == ["hex"] else value


client = VPPApiClient(apifiles=[sys.argv[1]], testmode=True)
for line in sys.stdin:
    name, fields = json.loads(line, object_hook=plain)
    print(client.messages[name].pack(fields).hex(), flush=True)
