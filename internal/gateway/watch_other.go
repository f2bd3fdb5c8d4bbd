//go:build !linux

package gateway

import (
	"errors"
	"net"
	"os"
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

// descriptor isn't there either.
type descriptor struct{}

func (*descriptor) own(*net.TCPConn, time.Duration) error { return errors.ErrUnsupported }
func (*descriptor) read([]byte) (int, error)              { return 0, errors.ErrUnsupported }
func (*descriptor) write([]byte) (int, error)             { return 0, errors.ErrUnsupported }
func (*descriptor) waiting() (*os.File, error)            { return nil, errors.ErrUnsupported }
func (*descriptor) use() bool                             { return false }
func (*descriptor) done()                                 {}
func (*descriptor) close()                                {}
func (*descriptor) abort()                                {}
