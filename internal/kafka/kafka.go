// Package kafka reads and writes Kafka for everything else: the shared live reader of a topic, bounded reads of
// history, a publisher, and topic discovery. It is the only package that imports sarama.
//
// Promises: it joins no consumer group and commits no offset, ever. Asking for a topic never creates it, whatever
// the brokers are set to. Look-ups never wait behind a long poll, nor behind a broker that is away while another
// answers. No error and no log line holds a password or a token.
package kafka
