package bench

import (
	"encoding/json"
	"errors"
	"fmt"
)

// ReadFloor reads a result of 'bench floor --json', which goes by a name.
func ReadFloor(raw []byte, name string) (*Result, error) {
	floor := new(Result)
	if err := json.Unmarshal(raw, floor); err != nil {
		return nil, fmt.Errorf("%s: %w", name, err)
	}
	return floor, floor.checkFloor(name)
}

func (r *Result) checkFloor(name string) error {
	if r.Mode != "floor" || r.Deliveries == nil || r.Deliveries.PerCPUSecond <= 0 {
		return errors.New(name + " isn't a result of 'bench floor --json'")
	}
	return nil
}

// CompareTo notes the ratio of deliveries per CPU-second to those of a floor, by whatever name that goes.
func (r *Result) CompareTo(floor *Result, name string) error {
	if err := floor.checkFloor(name); err != nil {
		return err
	}
	if r.Deliveries == nil || r.Deliveries.PerCPUSecond <= 0 {
		return errors.New("there are no deliveries per CPU-second to compare; say with --pid which process is the server")
	}
	r.RatioTo, r.FloorPerCPUSecond = name, floor.Deliveries.PerCPUSecond
	r.Ratio = r.Deliveries.PerCPUSecond / r.FloorPerCPUSecond
	return nil
}
