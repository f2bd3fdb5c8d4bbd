package main

import "context"

// pattern is the load of the rows that compare streamgw with what it replaces, a consumer group for each client. With
// more events than these, it fills the machine.
func pattern() load { return load{mode: "sse", config: gather, conns: 200, rate: 20} }

// patternOfFloor is what 30 times the pattern's deliveries a CPU-second were of the floor where that bound was set: 4,500
// of kafkajs, and a floor of 212,000. Where the floor itself is below 30 times the pattern, no server reaches the bound that
// writes every event at once.
const patternOfFloor = 0.64

func grouper(name, language, library string) row {
	return row{name: name, what: "200 clients × 20 events a second, SSE, from a consumer group each, in " + language + " with " + library,
		figures: []figure{shown(perCPUSecond, ""), shown(withBroker, ""), shown(perClient, "KB"), shown(groupsLeft, "")},
		measure: func(ctx context.Context, l *lab) (map[string]float64, error) {
			s, err := l.grouper(ctx, language)
			if err != nil {
				return nil, err
			}
			defer s.stop()
			return pattern().withGroups(ctx, l, s, "--path", "/stream?topic={topic}")
		}}
}

func grouped() row {
	return row{name: "grouped", what: "the same load on streamgw",
		figures: []figure{
			atLeast(perCPUSecond, "grouper-kafkajs", 30).orOfFloor(patternOfFloor), {name: perCPUSecond, of: "grouper", must: bound{none: true}},
			{name: perCPUSecond, of: "floor-200", must: bound{none: true}}, {name: withBroker, of: "grouper", must: bound{none: true}},
			{name: perClient, unit: "KB", of: "grouper", must: bound{none: true}}, atMost(groupsLeft, "", 0),
		},
		measure: func(ctx context.Context, l *lab) (map[string]float64, error) {
			s, err := l.gateway(ctx, pattern().config)
			if err != nil {
				return nil, err
			}
			defer s.stop()
			return pattern().withGroups(ctx, l, s)
		}}
}

// groupedByMany is what a client of streamgw takes of memory where there are enough of them to tell it from the process's own:
// of 200, most is what Go's heap grows to before it is collected for the first time.
func groupedByMany() row {
	many := pattern()
	many.conns = 1000
	return row{name: "grouped-1000", what: "1,000 clients × 20 events a second on streamgw, beside 200 of the others",
		figures: []figure{{name: perCPUSecond, of: "grouper-kafkajs", must: bound{none: true}}, atMostOf(perClient, "KB", "grouper", 0.01)},
		measure: onGateway(func(ctx context.Context, l *lab, s *server, _ string) (map[string]float64, error) {
			return many.against(ctx, l, s, "--first", "1")
		})}
}

// withGroups loads a server, and counts the consumer groups that are there when it has gone and weren't before.
func (ld load) withGroups(ctx context.Context, l *lab, s *server, more ...string) (map[string]float64, error) {
	before, err := l.groups(ctx)
	if err != nil {
		return nil, err
	}
	figures, err := ld.against(ctx, l, s, append(more, "--first", "1")...)
	if err != nil {
		return nil, err
	}
	s.stop()
	after, err := l.groups(ctx)
	if err != nil {
		return nil, err
	}
	figures[groupsLeft] = float64(after - before)
	return figures, nil
}
