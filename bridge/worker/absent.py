"""Routes that are not in the settings: while builds still wait for one, its gate is shut, so that it shows.

It knows no call. The clocks of giving up and of holding stand still meanwhile; the prober opens what comes back.
"""

from bridge.domain.gates import Signal, gates_of, is_of_route, route_gate
from bridge.domain.policy import Policy
from bridge.store.engine.database import Database
from bridge.store.keeping import pinned_routes
from bridge.store.upstreams import Told, all_gates, tell


async def tend_absent_routes(database: Database, policy: Policy) -> None:
    """Shut the gate of every route that builds are pinned to and `policy` does not know.

    Gates of a route that nobody knows and nothing waits for are opened: nobody else would, and it is no outage.
    """
    known = {route.name for route in policy.routes}
    pinned, gates = await database.read(pinned_routes), await database.read(all_gates)
    for route in sorted(pinned - known):
        if gates.closed(route_gate(route)) is None:
            reason = "It is not in the settings."
            told = Told(gate=route_gate(route), signal=Signal.SHUT, reason=reason, probe_delay_us=0)
            await database.write(tell, told)
    needed = {name for route in known | pinned for name in gates_of(route)}
    for name in sorted(name for name in gates.known if is_of_route(name) and name not in needed):
        if gates.closed(name) is not None:
            await database.write(tell, Told(gate=name, signal=Signal.GOOD, reason="", probe_delay_us=0))
