"""The policy proxy outside a sandbox: the only way its connections can take.

`mux` turns frames into byte streams, `proxy` speaks HTTP on one of them, `request` reads what was asked (pure),
`policy` decides about the host (pure), `dial` resolves and connects, `addresses` decides about the address (pure),
`refusal` is the answer no.

Not promised: a tunnel (CONNECT) is not looked into. Whoever shares an address with an allowed host, a content delivery
network above all, can be reached by a client that says one name to this proxy and another inside TLS.
"""
