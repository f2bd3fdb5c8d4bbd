package harness

import (
	"context"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kmsg"
)

// MoveLeaders gives every partition of a topic that can have one another leader: it puts the next replica in the first
// place and has the preferred leaders elected. It returns how many leaders changed.
func (k *Kafka) MoveLeaders(topic string) (moved int) {
	k.t.Helper()
	before := k.leaders(topic)
	k.rotateReplicas(topic)
	var after []int32
	Until(k.t, 30*time.Second, "leaders of "+topic+" move", func() bool {
		k.electPreferred(topic)
		after = k.leaders(topic)
		if len(after) != len(before) {
			return false
		}
		moved = 0
		for i := range after {
			if after[i] != before[i] {
				moved++
			}
		}
		return moved > 0
	})
	return moved
}

func (k *Kafka) rotateReplicas(topic string) {
	k.t.Helper()
	info, err := describe(k.client, topic)
	if err != nil {
		k.t.Fatalf("describe %s: %v", topic, err)
	}
	req := kmsg.NewPtrAlterPartitionAssignmentsRequest()
	req.TimeoutMillis = 20_000
	rt := kmsg.NewAlterPartitionAssignmentsRequestTopic()
	rt.Topic = topic
	for _, p := range info.Partitions {
		rp := kmsg.NewAlterPartitionAssignmentsRequestTopicPartition()
		rp.Partition = p.Partition
		rp.Replicas = append(append(rp.Replicas, p.Replicas[1:]...), p.Replicas[0])
		rt.Partitions = append(rt.Partitions, rp)
	}
	req.Topics = append(req.Topics, rt)
	k.do("reassign "+topic, func(ctx context.Context) error {
		resp, err := req.RequestWith(ctx, k.client)
		if err != nil {
			return err
		}
		for _, p := range resp.Topics[0].Partitions {
			if p.ErrorCode != 0 {
				return kerr.ErrorForCode(p.ErrorCode)
			}
		}
		return kerr.ErrorForCode(resp.ErrorCode)
	})
}

// electPreferred asks for it; a partition that has its preferred leader, or can't have it yet, is left as it is.
func (k *Kafka) electPreferred(topic string) {
	k.t.Helper()
	req := kmsg.NewPtrElectLeadersRequest()
	req.TimeoutMillis = 20_000
	rt := kmsg.NewElectLeadersRequestTopic()
	rt.Topic = topic
	for i := range k.leaders(topic) {
		rt.Partitions = append(rt.Partitions, int32(i))
	}
	req.Topics = append(req.Topics, rt)
	ctx, cancel := bounded()
	defer cancel()
	_, _ = req.RequestWith(ctx, k.client)
}
