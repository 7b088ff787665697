"""Routes that are not in the settings while builds still wait for them: their gates are shut, so that it shows.

It knows no call. The clocks of giving up and of holding stand still meanwhile; the prober opens what comes back.
"""

from bridge.domain.gates import Signal, route_gate
from bridge.domain.policy import Policy
from bridge.store.engine.database import Database
from bridge.store.keeping import pinned_routes
from bridge.store.upstreams import Told, all_gates, tell


async def shut_absent_routes(database: Database, policy: Policy) -> None:
    """Shut the gate of every route that builds are pinned to and that `policy` does not know."""
    known = {route.name for route in policy.routes}
    gates = await database.read(all_gates)
    for route in sorted(await database.read(pinned_routes) - known):
        if gates.closed(route_gate(route)) is None:
            reason = "It is not in the settings."
            told = Told(gate=route_gate(route), signal=Signal.SHUT, reason=reason, probe_delay_us=0)
            await database.write(tell, told)
