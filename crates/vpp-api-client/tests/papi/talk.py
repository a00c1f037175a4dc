"""Talks to a VPP as vpp_papi does: a call, a dump, a part of a cursor. Prints what came as JSON.

The arguments are a file of definitions and the socket.
"""

import json
import sys

from vpp_papi import VPPApiClient

client = VPPApiClient(apifiles=[sys.argv[1]], server_address=sys.argv[2])
client.connect("vpp_papi")
pid = client.api.control_ping().vpe_pid
names = [interface.interface_name for interface in client.api.sw_interface_dump()]
reply, details = client.api.sw_interface_tx_placement_get(cursor=0xFFFFFFFF, sw_if_index=0xFFFFFFFF)
print(json.dumps({"pid": pid, "names": names, "queues": [of.queue_id for of in details], "cursor": reply.cursor}))
client.disconnect()
