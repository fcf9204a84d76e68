<?php

declare(strict_types=1);

namespace PgUncache\Redis;

use Predis\ClientInterface;
use Predis\Command\CommandInterface;
use Predis\Command\RawCommand;
use Predis\Connection\NodeConnectionInterface;
use Predis\Response\ErrorInterface;

/**
 * Predis: one server, its replication (commands go to the master), or a Cluster.
 *
 * Raw commands pass by the client's prefix, so it is applied here.  Predis itself closes a
 * connection that failed.
 */
final class Predis implements Client
{
    /** null: no Cluster */
    private ?Slots $slots = null;

    public function __construct(private ClientInterface $redis, private int $timeoutMs)
    {
        $connection = $redis->getConnection();
        if (method_exists($connection, 'getClusterStrategy')) {
            $this->slots = new Slots();
            // Predis does not know where the key of these stands.
            $strategy = $connection->getClusterStrategy();
            $strategy->setCommandHandler('FCALL',
                fn (CommandInterface $command) => $command->getArgument(2));
        }
    }

    public function call(string $key, string ...$command): mixed
    {
        $reply = $this->guarded(fn () => $this->run($key, self::raw($command)));
        if ($reply instanceof ErrorInterface) {
            throw new Refusal($reply->getMessage());
        }
        return $reply;
    }

    public function calls(array $commands): array
    {
        $raws = array_map(fn ($one) => self::raw($one[1]), $commands);
        $connection = $this->redis->getConnection();
        $replies = $this->guarded(function () use ($commands, $raws, $connection) {
            if (!$connection instanceof NodeConnectionInterface) {
                return array_map(fn ($one, $raw) => $this->run($one[0], $raw), $commands, $raws);
            }
            foreach ($raws as $raw) {
                $connection->writeRequest($raw);
            }
            return array_map(fn ($raw) => $connection->readResponse($raw), $raws);
        });
        return array_map(fn ($reply) => $reply instanceof ErrorInterface ? null : $reply, $replies);
    }

    public function mget(array $keys): array
    {
        if ($this->redis->getConnection() instanceof NodeConnectionInterface) {
            return $this->call($keys[0], 'MGET', ...$keys);
        }
        return array_map(fn ($key) => $this->call($key, 'GET', $key), $keys);
    }

    public function nodeOf(string $key): string
    {
        return $this->slots === null ? '' : $this->slots->nodeOf($key, $this);
    }

    public function prefix(): string
    {
        $prefix = $this->redis->getOptions()->prefix;
        return is_object($prefix) ? (string) $prefix->getPrefix() : (string) $prefix;
    }

    public function address(): ?string
    {
        $at = $this->parameters();
        if ($at === null) {
            return null;
        }
        if ($at->scheme === 'unix') {
            return "unix://$at->path";
        }
        return 'tcp://' . (str_contains($at->host, ':') ? "[$at->host]" : $at->host) . ":$at->port";
    }

    public function isTls(): bool
    {
        return in_array($this->parameters()?->scheme, ['tls', 'rediss'], true);
    }

    public function pack(string $value): string
    {
        return $value;
    }

    public function unpack(string $bytes): mixed
    {
        return $bytes;
    }

    private function parameters(): ?object
    {
        $connection = $this->redis->getConnection();
        return $connection instanceof NodeConnectionInterface ? $connection->getParameters() : null;
    }

    private static function raw(array $command): CommandInterface
    {
        return RawCommand::create(...$command);
    }

    private function run(string $key, CommandInterface $command): mixed
    {
        $connection = $this->redis->getConnection();
        if ($key === '' && !$connection instanceof NodeConnectionInterface) {
            foreach ($connection as $node) {
                return $node->executeCommand($command);
            }
        }
        return $connection->executeCommand($command);
    }

    /** With the time limit of the fence, which the client's other commands do not have. */
    private function guarded(\Closure $work): mixed
    {
        $connection = $this->redis->getConnection();
        $stream = null;
        try {
            if ($connection instanceof NodeConnectionInterface) {
                $stream = $connection->getResource();
                if (is_resource($stream)) {
                    stream_set_timeout($stream, intdiv($this->timeoutMs, 1000),
                        $this->timeoutMs % 1000 * 1000);
                }
            }
            return $work();
        } catch (\Predis\CommunicationException $e) {
            throw new ConnectionLost($e->getMessage(), 0, $e);
        } catch (\Predis\PredisException $e) {
            throw new Refusal($e->getMessage(), 0, $e);
        } finally {
            if (is_resource($stream)) {
                $limit = (float) ($this->parameters()->read_write_timeout
                    ?? ini_get('default_socket_timeout'));
                stream_set_timeout($stream, $limit > 0 ? (int) $limit : -1,
                    $limit > 0 ? (int) (fmod($limit, 1) * 1e6) : 0);
            }
        }
    }
}
