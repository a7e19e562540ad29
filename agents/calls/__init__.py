"""How an agent's request becomes a reply that is paid for once: context, dispatcher, reply cache, call ledger,
budget. Knows no role and no topology.
"""
