package fanout

import "sync"

// owners counts the replays that are under way, by whose they are.
type owners struct {
	most int // of one owner; 0: any number

	mu    sync.Mutex // guards what follows
	under map[string]int
}

// replay is one that counts as its owner's. Nil is one that counts as nobody's.
type replay struct {
	of    *owners
	owner string
}

// begin counts one in, or returns ErrReplays.
func (o *owners) begin(owner string) (*replay, error) {
	if owner == "" || o.most == 0 {
		return nil, nil
	}
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.under[owner] >= o.most {
		return nil, ErrReplays
	}
	if o.under == nil {
		o.under = map[string]int{}
	}
	o.under[owner]++
	return &replay{o, owner}, nil
}

// end counts it out. It is called once.
func (r *replay) end() {
	if r == nil {
		return
	}
	o := r.of
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.under[r.owner]--; o.under[r.owner] == 0 {
		delete(o.under, r.owner)
	}
}
