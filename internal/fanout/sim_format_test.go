package fanout

import (
	"encoding/binary"
	"encoding/hex"
	"fmt"
	"strings"

	"github.com/goodgo/streamgw/internal/stream"
)

// simFormat makes frames that say which place they are of, and which incarnation: a record's value begins with that.
type simFormat struct{}

func (simFormat) AppendMessage(dst []byte, m *stream.Message, id string) []byte {
	return fmt.Appendf(dst, "%s %d %d x%x %s\n", m.Topic, m.Partition, m.Offset, m.Value[:min(len(m.Value), 8)], id)
}

// simBlocks packs the frames of simFormat into blocks that can't be read but whole and from their beginning.
type simBlocks struct{ simFormat }

func (simBlocks) AppendBlock(dst, frames []byte) []byte {
	dst = binary.BigEndian.AppendUint32(dst, uint32(len(frames)))
	for _, b := range frames {
		dst = append(dst, ^b)
	}
	return dst
}

// unpack returns the frames of whole blocks, and how many there are.
func unpack(blocks []byte) (frames []byte, n int, err error) {
	for ; len(blocks) > 0; n++ {
		if len(blocks) < 4 || len(blocks)-4 < int(binary.BigEndian.Uint32(blocks)) {
			return nil, 0, fmt.Errorf("a block is cut: %x", blocks)
		}
		end := 4 + int(binary.BigEndian.Uint32(blocks))
		for _, b := range blocks[4:end] {
			frames = append(frames, ^b)
		}
		blocks = blocks[end:]
	}
	return frames, n, nil
}

var simFormats = []Format{simFormat{}, simBlocks{}}

// itemsOf reads frames that simFormat wrote.
func itemsOf(frames []byte) (items []Item, err error) {
	for line := range strings.Lines(string(frames)) {
		m := new(stream.Message)
		var value, id string
		if _, err := fmt.Sscanf(line, "%s %d %d x%s %s\n", &m.Topic, &m.Partition, &m.Offset, &value, &id); err != nil {
			return nil, fmt.Errorf("frame %q: %w", line, err)
		}
		if m.Value, err = hex.DecodeString(value); err != nil {
			return nil, err
		}
		items = append(items, Item{Message: m, ID: id})
	}
	return items, nil
}
