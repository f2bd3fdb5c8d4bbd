//go:build !linux

package gateway

import (
	"errors"
	"syscall"
	"time"
)

// watcher isn't there on this system: no connection is taken over.
type watcher struct{}

type watch struct{}

func newWatcher() (*watcher, error) { return nil, errors.ErrUnsupported }

func (*watcher) run() error         { return errors.ErrUnsupported }
func (*watcher) close() error       { return nil }
func (*watcher) add(*taken) error   { return errors.ErrUnsupported }
func (*watcher) again(*taken) error { return errors.ErrUnsupported }
func (*watcher) remove(*taken)      {}

func tryRead(syscall.RawConn, []byte) (int, error) { return 0, errors.ErrUnsupported }

func tryWrite(uintptr, []byte) (int, error) { return 0, errors.ErrUnsupported }

func setUserTimeout(syscall.RawConn, time.Duration) error { return errors.ErrUnsupported }
