"""Pure planning: spec + facts + now -> Plan. No await, clock, random, environment or I/O in here (law 1)."""
